"""Passing one request to a replica, and its answer back as it comes.

Another replica is tried only before the first byte of an answer, and once, where asking twice changes nothing. Where
there was no connection nothing was asked, so that does not count.
"""

from __future__ import annotations

import random
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import NamedTuple

from api.contract.asking import NotConnectedError
from api.contract.job.own_trouble import is_own_trouble
from api.gateway.answer import Answer
from api.gateway.ejection import Ejections
from api.gateway.exchange import BrokenError, Exchange, Header, SilentError
from api.gateway.leaving import Leaving, LeftError, Staying
from api.gateway.pool import Pool
from api.gateway.refusals import Form, GatewayError, engine_refusal
from api.gateway.shown import STREAM, content_type, model_headers
from api.gateway.token_count import TokenCount
from api.web.replicas import InFlight, ReadyReplica, why_not_connected

MOST_ASKED = 2
BUSY = (502, 503, 504)
"""Answers of a replica that has too much to do, or ends: another may answer."""
RETRY_SECONDS = 2
LONGEST_REFUSAL = 64 * 1024
"""Bytes that are read of an answer that was to be a stream and is none."""


class Passing(NamedTuple):
    """A request as engines are asked."""

    target: str
    """Path and query."""
    replicas: Sequence[ReadyReplica]
    asked_for: str
    """What the client calls it, for people: the model 'x'."""
    silence: float
    """For so many seconds an engine may say nothing in its answer."""
    method: str = "POST"
    headers: tuple[Header, ...] = ()
    body: bytes = b""
    first_byte: float | None = None
    """And for so many before it; `None`: the same."""
    caller: str = ""
    """Whose request it is: the key's id."""
    form: Form = Form.OPENAI
    """Whose errors its client understands."""
    request_id: str = ""
    is_repeatable: bool = True
    """Whether asking twice changes nothing in engines."""
    shown: Callable[[Sequence[Header]], list[Header]] = model_headers
    """Which headers of an answer the client gets."""
    tokens: TokenCount | None = None
    """What reads along to count."""
    told: tuple[Header, ...] = ()
    """Further headers for the client: of its limits."""


class AskedReplica(NamedTuple):
    """A replica that has begun to answer."""

    replica: ReadyReplica
    exchange: Exchange
    decides: bool
    """Whether its answer decides on its ejection."""


class Forwarder:
    """Passes requests on, and counts what is in flight on each replica."""

    def __init__(self, pool: Pool, most_in_flight: int = 0, draw: random.Random | None = None) -> None:
        """`most_in_flight`: so many requests a replica is asked at a time, as long as another has room; 0: any."""
        self._pool = pool
        self._most_in_flight = most_in_flight
        self._in_flight = InFlight(draw)
        self._ejections = Ejections()

    def has_room(self, replicas: Sequence[ReadyReplica]) -> bool:
        """Whether one of these may be asked more."""
        return bool(self._in_flight.with_room(replicas, self._most_in_flight))

    async def forward(self, passing: Passing, leaving: Leaving, answer: Answer) -> None:
        """Pass a request on, whose body has been read.

        Raises `GatewayError` while no engine has answered, `LeftError`.
        """
        asked = await self._ask_one(passing, leaving)
        try:
            await _pass_back(passing, asked.exchange, leaving, answer)
        finally:
            self._keep(asked)

    @asynccontextmanager
    async def asked(self, passing: Passing, leaving: Leaving | Staying) -> AsyncIterator[tuple[ReadyReplica, Exchange]]:
        """Give the exchange with the replica that answers, at the head of its answer.

        What is not read of it ends the exchange. Raises `GatewayError` where none answers, `LeftError`.
        """
        asked = await self._ask_one(passing, leaving)
        try:
            yield asked.replica, asked.exchange
        finally:
            self._keep(asked)

    def _keep(self, asked: AskedReplica) -> None:
        self._pool.keep(asked.replica, asked.exchange)
        self._end(asked.replica, decides=asked.decides)

    async def _ask_one(self, passing: Passing, leaving: Leaving | Staying) -> AskedReplica:
        """Ask one replica after another until one answers; it counts as being asked until `_keep`."""
        left = list(passing.replicas)
        problems: list[str] = []
        may_ask = MOST_ASKED if passing.is_repeatable else 1
        while left and may_ask and not leaving.is_gone:
            replica = self._choose(left)
            left.remove(replica)
            decides, has_answered = self._begin(replica), False
            try:
                exchange = await self._ask(replica, passing, leaving)
                may_ask -= 1
                has_answered = exchange.status not in BUSY or not left or not may_ask
                if has_answered:
                    return AskedReplica(replica, exchange, decides)
                exchange.abort()
            except NotConnectedError as error:
                problems.append(f"{replica.name}: {why_not_connected(replica, error)}")
            except SilentError as error:
                raise GatewayError(504, f"No answer came from {passing.asked_for}: {error}.") from error
            except BrokenError as error:
                if leaving.is_gone:
                    raise LeftError from error
                may_ask -= 1
                problems.append(f"{replica.name}: {error}")
            finally:
                if not has_answered:
                    self._end(replica, decides=decides)
        told = "; ".join(problems) or "none is ready"
        raise GatewayError(
            503,
            f"No replica of {passing.asked_for} answered ({told}). Try again in a moment.",
            code="engine_unreachable",
            retry_after=RETRY_SECONDS,
        )

    async def _ask(self, replica: ReadyReplica, passing: Passing, leaving: Leaving | Staying) -> Exchange:
        """Return the exchange at the head of its answer; raises `NotConnectedError` and `BrokenError`."""
        if passing.is_repeatable and (kept := self._pool.idle(replica)) is not None:
            try:
                await self._ask_on(kept, replica, passing, leaving)
            except BrokenError:
                # The engine closed it while the request was on its way, which is no failure, if nothing came.
                if kept.received or leaving.is_gone:
                    raise
            else:
                return kept
        way = self._pool.way(replica)
        try:
            exchange = await self._pool.open(way)
        except NotConnectedError as error:
            if not is_own_trouble(error):
                self._ejections.fail(replica.token, self._now())
            raise
        await self._ask_on(exchange, replica, passing, leaving)
        return exchange

    async def _ask_on(
        self, exchange: Exchange, replica: ReadyReplica, passing: Passing, leaving: Leaving | Staying
    ) -> None:
        leaving.then(exchange.abort)
        request = _request(passing, exchange.own_lines)
        try:
            exchange.send(request, passing.silence, passing.first_byte, is_head=passing.method == "HEAD")
            await exchange.head()
        except BaseException:
            exchange.abort()
            raise
        self._ejections.answer(replica.token, exchange.status, passing.caller, self._now())

    def _begin(self, replica: ReadyReplica) -> bool:
        """Count a replica as being asked; return whether its answer decides on its ejection."""
        self._in_flight.begin(replica)
        return self._ejections.begin(replica.token, self._now())

    def _end(self, replica: ReadyReplica, *, decides: bool) -> None:
        self._in_flight.end(replica)
        if decides:
            self._ejections.give_up(replica.token)

    def _choose(self, replicas: Sequence[ReadyReplica]) -> ReadyReplica:
        if len(replicas) == 1:
            return replicas[0]
        free = self._in_flight.with_room(replicas, self._most_in_flight) or replicas
        return self._in_flight.choose(self._ejections.among(free, self._now()))

    @staticmethod
    def _now() -> float:
        return time.monotonic()


async def _pass_back(passing: Passing, exchange: Exchange, leaving: Leaving, answer: Answer) -> None:
    kind = content_type(exchange.headers)
    last = b""
    headers = [*passing.shown(exchange.headers), *passing.told]
    has_length = any(name == b"content-length" for name, _ in headers)
    is_stream = kind == STREAM and not has_length
    tells_errors = is_stream or answer.has_begun
    if passing.tokens is not None:
        passing.tokens.begin(exchange.status, kind)
    try:
        if answer.has_begun and (exchange.status != 200 or kind != STREAM):
            await answer.fail(await _refused(exchange))
            return
        if passing.tokens is not None:
            exchange.read_along(passing.tokens.feed)
        if has_length and exchange.is_whole:
            await answer.send_whole(exchange.status, headers, await exchange.chunk())
            return
        outlet = None if has_length else answer.outlet
        await answer.begin(exchange.status, headers, is_stream=is_stream)
        while chunk := await exchange.chunk():
            if exchange.is_over:
                last = chunk
                break
            await answer.send(chunk)
            if outlet is not None:
                await exchange.pass_to(outlet)
    except BrokenError as error:
        if leaving.is_gone or not tells_errors:
            return  # the server closes the connection: a client sees that something is missing
        await answer.fail(GatewayError(502, f"The answer broke off: {error}.", code="engine_unreachable"))
        return
    await answer.end(last)


async def _refused(exchange: Exchange) -> GatewayError:
    """Read an answer that is no stream, for a client to whom one has begun. Raises `BrokenError`."""
    said = b""
    while len(said) < LONGEST_REFUSAL and (chunk := await exchange.chunk()):
        said += chunk
    return engine_refusal(exchange.status, said)


def _request(passing: Passing, own_lines: bytes) -> tuple[bytes, bytes]:
    """Write what is sent to an engine: the client's words, under a head of our own."""
    lines = [b"%b %b HTTP/1.1" % (passing.method.encode(), passing.target.encode()), own_lines]
    lines += [b"%b: %b" % header for header in passing.headers]
    if passing.body or passing.method not in ("GET", "HEAD"):
        lines.append(b"content-length: %d" % len(passing.body))
    if passing.request_id:
        lines.append(b"x-request-id: %b" % passing.request_id.encode())
    return b"\r\n".join([*lines, b"", b""]), passing.body
