"""Talking to engines: which replica is asked, under which secret, and what counts as no answer."""

from __future__ import annotations

import random
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import httpx
import msgspec

from api.contract.doorless import authorization
from api.contract.doors import Doors, UnknownKeyError, Way, base_url, is_of_another
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


class NotConnectedError(Exception):
    """A replica was not asked: there is no connection to it; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadyReplica:
    """A replica that is ready, and where."""

    token: str
    name: str
    """For people: service id and number."""
    models: tuple[str, ...]
    host: str
    port: int
    door: str | None
    """Under which of the installation's keys its door is made; `None`: it has none."""

    @property
    def endpoint(self) -> str:
        """Its base URL."""
        return base_url(self.host, self.port, has_door=self.door is not None)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a replica answered."""

    replica: ReadyReplica
    status: int
    body: Any
    """JSON decoded, or text where it is none."""


def choose(replicas: Sequence[ReadyReplica], in_flight: Mapping[str, int], draw: random.Random) -> ReadyReplica:
    """Draw two replicas and take the one with less in flight: nearly as even as asking all, without herding."""
    drawn = draw.sample(replicas, min(2, len(replicas)))
    return min(drawn, key=lambda replica: in_flight.get(replica.token, 0))


def new_client(doors: ssl.SSLContext | None = None) -> httpx.AsyncClient:
    """Make a client for doors that are opened so, or for engines without; no proxy applies to the cluster.

    A pool tells connections apart by host and port alone. Attempts have the same ones one after another, so through
    doors each request has a connection of its own: none is ever used for an attempt that it was not opened for.
    """
    kept = 0 if doors is not None else 64
    return httpx.AsyncClient(
        verify=doors or True,
        trust_env=False,
        http2=False,
        follow_redirects=False,
        timeout=httpx.Timeout(READ_SECONDS, connect=CONNECT_SECONDS, pool=CONNECT_SECONDS),
        limits=httpx.Limits(max_connections=1024, max_keepalive_connections=kept, keepalive_expiry=IDLE_SECONDS),
    )


class Engines:
    """Sends requests to replicas and counts what is in flight on each."""

    def __init__(self, doors: Doors, draw: random.Random | None = None) -> None:
        self._doors = doors
        self._clients: dict[ssl.SSLContext | None, httpx.AsyncClient] = {}
        self._draw = draw or random.SystemRandom()
        self._in_flight: Counter[str] = Counter()

    async def close(self) -> None:
        """Close all connections."""
        for client in self._clients.values():
            await client.aclose()

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
            except NotConnectedError as error:
                refused.append(f"{replica.endpoint}: {error}")
                left.remove(replica)
        raise UnreachableError("; ".join(refused))

    async def _send(
        self, replica: ReadyReplica, method: str, path: str, content: bytes | None, seconds: float
    ) -> Answer:
        with self._counted(replica), _failures(replica, seconds):
            client, request = self._request(replica, method, path, content, seconds)
            response = await client.send(request)
        return Answer(replica, response.status_code, _decoded(response))

    async def _open(self, replica: ReadyReplica, path: str, content: bytes) -> tuple[ReadyReplica, httpx.Response]:
        with self._counted(replica), _failures(replica, READ_SECONDS):
            client, request = self._request(replica, "POST", path, content, READ_SECONDS)
            return replica, await client.send(request, stream=True)

    def _request(
        self, replica: ReadyReplica, method: str, path: str, content: bytes | None, seconds: float
    ) -> tuple[httpx.AsyncClient, httpx.Request]:
        """Return a request, and the client that is to send it. Raises `NotConnectedError` where there is no way."""
        try:
            way = self._doors.way(replica.host, replica.port, replica.token, replica.door)
        except UnknownKeyError as error:
            raise NotConnectedError(str(error)) from error
        client = self._client(way)
        request = client.build_request(
            method,
            way.base_url + path,
            content=content,
            headers={**authorization(way.secret), "Content-Type": "application/json"},
            timeout=httpx.Timeout(seconds, connect=CONNECT_SECONDS, pool=CONNECT_SECONDS),
            extensions={"sni_hostname": way.name} if way.has_door else {},
        )
        return client, request

    def _client(self, way: Way) -> httpx.AsyncClient:
        if way.http not in self._clients:
            self._clients[way.http] = new_client(way.http)
        return self._clients[way.http]

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
    """Turn failures into `NotConnectedError`, or, once there was a connection, into `UnreachableError`."""
    try:
        yield
    except (httpx.ConnectError, httpx.ConnectTimeout) as error:
        other = f"another program listens there: it can't prove that it is {replica.token}"
        raise NotConnectedError(other if is_of_another(error) else _words(error)) from error
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
