"""Talking to engines: which replica is asked, under which secret, and what counts as no answer."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import httpx
import msgspec

from api.contract.identity import secret
from api.contract.job.own_trouble import is_own_trouble

CONNECT_SECONDS = 5.0
READ_SECONDS = 600.0
"""How long a generation may take."""
MODELS_SECONDS = 10.0
IDLE_SECONDS = 2.0
"""Idle connections are dropped before vLLM's server drops them (after 5 s): no request meets one that just closed."""


Result = TypeVar("Result")


class UnreachableError(Exception):
    """No replica answered; the message says what happened."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadyReplica:
    """A replica that is ready, and where."""

    token: str
    name: str
    """For people: service id and number."""
    models: tuple[str, ...]
    host: str
    port: int

    @property
    def endpoint(self) -> str:
        """Its base URL."""
        return url(self.host, self.port)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a replica answered."""

    replica: ReadyReplica
    status: int
    body: Any
    """JSON decoded, or text where it is none."""


def url(host: str, port: int) -> str:
    """Return the base URL of a replica."""
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def choose(replicas: Sequence[ReadyReplica], in_flight: Mapping[str, int], draw: random.Random) -> ReadyReplica:
    """Draw two replicas and take the one with less in flight: nearly as even as asking all, without herding."""
    drawn = draw.sample(replicas, min(2, len(replicas)))
    return min(drawn, key=lambda replica: in_flight.get(replica.token, 0))


def new_client() -> httpx.AsyncClient:
    """Make the client that is shared by all requests; the environment's proxies do not apply to the cluster."""
    return httpx.AsyncClient(
        trust_env=False,
        http2=False,
        follow_redirects=False,
        timeout=httpx.Timeout(READ_SECONDS, connect=CONNECT_SECONDS, pool=CONNECT_SECONDS),
        limits=httpx.Limits(max_connections=1024, max_keepalive_connections=64, keepalive_expiry=IDLE_SECONDS),
    )


class Engines:
    """Sends requests to replicas and counts what is in flight on each."""

    def __init__(self, client: httpx.AsyncClient, key: bytes, draw: random.Random | None = None) -> None:
        self._client = client
        self._key = key
        self._draw = draw or random.SystemRandom()
        self._in_flight: Counter[str] = Counter()

    async def get(self, replicas: Sequence[ReadyReplica], path: str) -> Answer:
        """Ask one of the replicas; raises `UnreachableError`."""
        return await self._ask(replicas, lambda replica: self._send(replica, "GET", path, None, MODELS_SECONDS))

    async def post(self, replicas: Sequence[ReadyReplica], path: str, content: Mapping[str, Any]) -> Answer:
        """Send JSON to one of the replicas; raises `UnreachableError`."""
        body = msgspec.json.encode(content)
        return await self._ask(replicas, lambda replica: self._send(replica, "POST", path, body, READ_SECONDS))

    @asynccontextmanager
    async def stream(
        self, replicas: Sequence[ReadyReplica], path: str, content: Mapping[str, Any]
    ) -> AsyncIterator[tuple[Answer, AsyncIterator[bytes]]]:
        """Send JSON to one of the replicas, and take its answer bit by bit; raises `UnreachableError`.

        A refusal is read at once, and then nothing follows; of any other answer the body is left to what follows.
        """
        body = msgspec.json.encode(content)
        replica, response = await self._ask(replicas, lambda replica: self._open(replica, path, body))
        try:
            with self._counted(replica), _failures(replica, READ_SECONDS):
                if response.status_code != httpx.codes.OK:
                    await response.aread()
                    yield Answer(replica, response.status_code, _decoded(response)), _nothing()
                else:
                    yield Answer(replica, response.status_code, None), response.aiter_bytes()
        finally:
            await response.aclose()

    async def _ask(self, replicas: Sequence[ReadyReplica], send: Callable[[ReadyReplica], Awaitable[Result]]) -> Result:
        """Try another replica as long as none has taken the connection; once one has, its answer or failure counts."""
        left = list(replicas)
        refused: list[str] = []
        while left:
            replica = choose(left, self._in_flight, self._draw)
            try:
                return await send(replica)
            except (httpx.ConnectError, httpx.ConnectTimeout) as error:
                refused.append(f"{replica.endpoint}: {_words(error)}")
                left.remove(replica)
        raise UnreachableError("; ".join(refused))

    async def _send(
        self, replica: ReadyReplica, method: str, path: str, content: bytes | None, seconds: float
    ) -> Answer:
        with self._counted(replica), _failures(replica, seconds):
            response = await self._client.send(self._request(replica, method, path, content, seconds))
        return Answer(replica, response.status_code, _decoded(response))

    async def _open(self, replica: ReadyReplica, path: str, content: bytes) -> tuple[ReadyReplica, httpx.Response]:
        with self._counted(replica), _failures(replica, READ_SECONDS):
            request = self._request(replica, "POST", path, content, READ_SECONDS)
            return replica, await self._client.send(request, stream=True)

    def _request(
        self, replica: ReadyReplica, method: str, path: str, content: bytes | None, seconds: float
    ) -> httpx.Request:
        headers = {
            "Authorization": f"Bearer {secret(self._key, replica.token)}",
            "Content-Type": "application/json",
        }
        timeout = httpx.Timeout(seconds, connect=CONNECT_SECONDS, pool=CONNECT_SECONDS)
        return self._client.build_request(
            method, replica.endpoint + path, content=content, headers=headers, timeout=timeout
        )

    @contextmanager
    def _counted(self, replica: ReadyReplica) -> Iterator[None]:
        self._in_flight[replica.token] += 1
        try:
            yield
        finally:
            self._in_flight[replica.token] -= 1
            if not self._in_flight[replica.token]:
                del self._in_flight[replica.token]


@contextmanager
def _failures(replica: ReadyReplica, seconds: float) -> Iterator[None]:
    """Turn what happens once a connection was taken into `UnreachableError`."""
    try:
        yield
    except (httpx.ConnectError, httpx.ConnectTimeout):
        raise
    except httpx.ReadTimeout as error:
        raise UnreachableError(f"{replica.endpoint}: no answer within {seconds:g} s") from error
    except httpx.HTTPError as error:
        raise UnreachableError(f"{replica.endpoint}: {_words(error)}") from error


async def _nothing() -> AsyncIterator[bytes]:
    chunks: tuple[bytes, ...] = ()
    for chunk in chunks:
        yield chunk


def _decoded(response: httpx.Response) -> Any:
    try:
        return msgspec.json.decode(response.content)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return response.text


def _words(error: httpx.HTTPError) -> str:
    said = str(error) or type(error).__name__
    if isinstance(error, httpx.PoolTimeout) or is_own_trouble(error):
        return f"it was not asked, since the API's own host is short of connections ({said})"
    return said
