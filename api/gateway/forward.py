"""Passing one request to a replica, and its answer back as it comes.

Another replica is tried only before the first byte of an answer, and once: what engines are asked for here changes
nothing in them. Where there was no connection nothing was asked, so that does not count.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass

from litestar.types import Receive, Send

from api.contract.asking import NotConnectedError
from api.contract.doorless import authorization
from api.contract.job.own_trouble import is_own_trouble
from api.gateway.ejection import Ejections
from api.gateway.exchange import BrokenError, Exchange, Header, SilentError
from api.gateway.leaving import Leaving
from api.gateway.operations import EngineOperation
from api.gateway.pool import Pool
from api.gateway.refusals import GatewayError, event_of
from api.web.replicas import InFlight, ReadyReplica, why_not_connected

MOST_ASKED = 2
PASSED_BACK = (b"content-length", b"retry-after")
"""Of an answer's headers."""
STREAM = b"text/event-stream"
CONTENT_TYPES = (b"application/json", STREAM, b"audio/")
"""What an engine may say that its answer is; anything else is bytes, which no browser shows."""
BUSY = (502, 503, 504)
"""Answers of a replica that has too much to do, or ends: another may answer."""
RETRY_SECONDS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Passing:
    """A request as engines are asked."""

    operation: EngineOperation
    headers: tuple[Header, ...]
    body: bytes
    replicas: Sequence[ReadyReplica]
    model: str
    """As the client calls it."""
    request_id: str


class Forwarder:
    """Passes requests on, and counts what is in flight on each replica."""

    def __init__(self, pool: Pool, silence: float, draw: random.Random | None = None) -> None:
        """`silence`: for so many seconds an engine may say nothing, before its answer and in it."""
        self._pool = pool
        self._silence = silence
        self._in_flight = InFlight(draw)
        self._ejections = Ejections()

    async def forward(self, passing: Passing, receive: Receive, send: Send) -> None:
        """Pass a request on, whose body has been read. Raises `GatewayError` while nothing has been answered."""
        leaving = Leaving(receive)
        try:
            await self._try_each(passing, leaving, send)
        finally:
            leaving.close()

    async def _try_each(self, passing: Passing, leaving: Leaving, send: Send) -> None:
        left = list(passing.replicas)
        problems: list[str] = []
        asked = 0
        while left and asked < MOST_ASKED and not leaving.is_gone:
            replica = self._choose(left)
            left.remove(replica)
            with self._in_flight.counted(replica):
                try:
                    exchange = await self._ask(replica, passing, leaving)
                except NotConnectedError as error:
                    problems.append(f"{replica.name}: {why_not_connected(replica, error)}")
                    continue
                except SilentError as error:
                    raise GatewayError(504, f"The model {passing.model!r} did not answer: {error}.") from error
                except BrokenError as error:
                    asked += 1
                    problems.append(f"{replica.name}: {error}")
                    continue
                asked += 1
                if exchange.status in BUSY and left and asked < MOST_ASKED:
                    exchange.abort()
                    continue
                try:
                    await self._pass_back(passing, exchange, leaving, send)
                finally:
                    self._pool.keep(replica, exchange)
                return
        if not leaving.is_gone:
            told = "; ".join(problems) or "none is ready"
            raise GatewayError(
                503,
                f"No replica of the model {passing.model!r} answered ({told}). Try again in a moment.",
                code="engine_unreachable",
                retry_after=RETRY_SECONDS,
            )

    async def _ask(self, replica: ReadyReplica, passing: Passing, leaving: Leaving) -> Exchange:
        """Return the exchange at the head of its answer; raises `NotConnectedError` and `BrokenError`."""
        way = self._pool.way(replica)
        request = _request(passing, way.secret)
        if (kept := self._pool.idle(replica)) is not None:
            try:
                await self._ask_on(kept, replica, request, leaving)
            except BrokenError:
                # The engine closed it while the request was on its way, which is no failure, if nothing came.
                if kept.has_begun or leaving.is_gone:
                    raise
            else:
                return kept
        try:
            exchange = await self._pool.open(way)
        except NotConnectedError as error:
            if not is_own_trouble(error):
                self._ejections.fail(replica.token, self._now())
            raise
        await self._ask_on(exchange, replica, request, leaving)
        return exchange

    async def _ask_on(
        self, exchange: Exchange, replica: ReadyReplica, request: Sequence[bytes], leaving: Leaving
    ) -> None:
        leaving.ends(exchange)
        try:
            exchange.send(request, self._silence)
            await exchange.head()
        except BaseException:
            exchange.abort()
            raise
        self._ejections.succeed(replica.token)

    async def _pass_back(self, passing: Passing, exchange: Exchange, leaving: Leaving, send: Send) -> None:
        await send({"type": "http.response.start", "status": exchange.status, "headers": _headers(exchange)})
        last = b""
        try:
            while chunk := await exchange.chunk():
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
        except BrokenError as error:
            if leaving.is_gone or _content_type(exchange) != STREAM:
                return  # the server closes the connection: a client sees that something is missing
            gone = GatewayError(502, f"The answer broke off: {error}.", code="engine_unreachable")
            last = event_of(gone, passing.operation.form, passing.request_id)
        await send({"type": "http.response.body", "body": last, "more_body": False})

    def _choose(self, replicas: Sequence[ReadyReplica]) -> ReadyReplica:
        if len(replicas) == 1:
            return replicas[0]
        return self._in_flight.choose(self._ejections.among(replicas, self._now()))

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()


def _request(passing: Passing, secret: str | None) -> tuple[bytes, bytes]:
    """Write what is sent to an engine: the client's words, under a head of our own."""
    lines = [b"POST %b HTTP/1.1" % passing.operation.path.encode(), b"host: engine", b"accept-encoding: identity"]
    lines += [b"%b: %b" % header for header in passing.headers]
    lines += [b"%b: %b" % (name.encode(), value.encode()) for name, value in authorization(secret).items()]
    lines += [
        b"content-type: application/json",
        b"content-length: %d" % len(passing.body),
        b"x-request-id: %b" % passing.request_id.encode(),
    ]
    return b"\r\n".join([*lines, b"", b""]), passing.body


def _headers(exchange: Exchange) -> list[Header]:
    kept = [header for header in exchange.headers if header[0] in PASSED_BACK]
    return [(b"content-type", _content_type(exchange)), (b"cache-control", b"no-store"), *kept]


def _content_type(exchange: Exchange) -> bytes:
    said = next((value for name, value in exchange.headers if name == b"content-type"), b"")
    kind = said.partition(b";")[0].strip().lower()
    return kind if kind.startswith(CONTENT_TYPES) else b"application/octet-stream"
