"""Asking engines for what we read ourselves: on the gateway's way to them, and no answer is larger than it may be."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import msgspec

from api.contract.asking import AskingError
from api.gateway.exchange import MOST_BESIDE, BrokenError, Exchange
from api.gateway.forward import Forwarder, Passing
from api.gateway.leaving import Staying
from api.gateway.refusals import GatewayError
from api.gateway.shown import content_type
from api.gateway.token_count import TokenCount
from api.web.replicas import ReadyReplica

READ_SECONDS = 600.0
"""How long a generation may take, or be silent where it is streamed."""
STREAM_SECONDS = 3600.0
GET_SECONDS = 10.0
LARGEST_ANSWER = 4 * 1024 * 1024
MOST_VALUES = 200_000
"""Of JSON: brackets and commas that are decoded, which takes many times their size, and the event loop's time."""
LARGEST_STREAM = 32 * 1024 * 1024
"""Bytes: about 130,000 of vLLM's tokens."""
PIECE = 64 * 1024
"""Bytes that are looked at in one go: of short lines each is an object, ten times as large."""
JSON = (b"content-type", b"application/json")


class UnreachableError(GatewayError):
    """No replica answered; the message says what happened."""


class BadAnswerError(Exception):
    """A replica answered, and not as it should; the message says what it did."""


NO_ANSWER = (UnreachableError, BadAnswerError)
"""What is raised where there is nothing to read."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a replica answered."""

    replica: ReadyReplica
    status: int
    body: Any
    """JSON decoded, or text where it is none."""


@dataclass(frozen=True, slots=True)
class AskedBy:
    """For whom an engine is asked."""

    key: str = ""
    """The id of their key; without one an operator."""
    tokens: TokenCount | None = None
    """What is to read along; `None`: nobody counts."""


NOBODY = AskedBy()


class Engines:
    """Asks one of some replicas, and reads what it answers. All raise `UnreachableError` and `BadAnswerError`."""

    def __init__(self, forwarder: Forwarder) -> None:
        self._forwarder = forwarder

    async def get(self, replicas: Sequence[ReadyReplica], path: str, size: int = LARGEST_ANSWER) -> Answer:
        """Ask one of the replicas for at most so many bytes."""
        passing = Passing(method="GET", target=path, replicas=replicas, asked_for="the service", silence=GET_SECONDS)
        async with self._asked(passing, GET_SECONDS, size) as (replica, reply):
            return await _answer(replica, reply)

    async def post(
        self, replicas: Sequence[ReadyReplica], path: str, content: Mapping[str, Any], asked_by: AskedBy = NOBODY
    ) -> Answer:
        """Send JSON to one of the replicas."""
        passing = _posting(replicas, path, content, asked_by)
        async with self._asked(passing, READ_SECONDS, LARGEST_ANSWER) as (replica, reply):
            return await _answer(replica, reply)

    @asynccontextmanager
    async def stream(
        self, replicas: Sequence[ReadyReplica], path: str, content: Mapping[str, Any], asked_by: AskedBy = NOBODY
    ) -> AsyncIterator[tuple[Answer, AsyncIterator[bytes]]]:
        """Send JSON to one of the replicas, and take its answer bit by bit.

        A refusal is read at once, and then nothing follows; of any other answer the body is left to what follows.
        """
        passing = _posting(replicas, path, content, asked_by)
        async with self._asked(passing, STREAM_SECONDS, LARGEST_STREAM) as (replica, reply):
            is_refused = reply.status != 200
            answer = await _answer(replica, reply) if is_refused else Answer(replica, reply.status, None)
            yield answer, reply.pieces()

    @asynccontextmanager
    async def _asked(
        self, passing: Passing, seconds: float, size: int
    ) -> AsyncIterator[tuple[ReadyReplica, BoundedReply]]:
        ends = asyncio.get_running_loop().time() + seconds
        try:
            async with self._forwarder.asked(passing, Staying()) as (replica, exchange):
                try:
                    _check_encoding(exchange)
                    yield replica, BoundedReply(exchange, size, ends, passing.tokens)
                except (AskingError, BrokenError) as error:
                    raise BadAnswerError(f"{replica.endpoint}: {error}") from error
        except GatewayError as error:
            raise UnreachableError(error.status, error.message) from error


class BoundedReply:
    """An answer, as far as it is read: so many bytes, with what carries them, until a moment of the loop's time."""

    def __init__(self, exchange: Exchange, size: int, ends: float, tokens: TokenCount | None = None) -> None:
        """`tokens` reads along."""
        self._exchange = exchange
        self._size = size
        self._ends = ends
        self.status = exchange.status
        if tokens is not None:
            tokens.begin(exchange.status, content_type(exchange.headers))
        self._tokens = tokens if exchange.status < 400 else None

    async def pieces(self) -> AsyncIterator[bytes]:
        """Yield the body as it comes; raises `AskingError`, `BrokenError`."""
        while piece := await self._piece():
            if self._exchange.received > self._size + MOST_BESIDE:
                raise AskingError(f"its answer is longer than {self._size:,} bytes")
            if self._tokens is not None:
                self._tokens.feed(piece)
            for start in range(0, len(piece), PIECE):
                yield piece[start : start + PIECE]

    async def read(self) -> bytearray:
        """Return the whole body, in memory once; raises `AskingError`, `BrokenError`."""
        body = bytearray()
        async for piece in self.pieces():
            body += piece
        return body

    async def _piece(self) -> bytes:
        try:
            async with asyncio.timeout_at(self._ends):
                return await self._exchange.chunk()
        except TimeoutError as error:
            raise AskingError("its answer has no end") from error


def _check_encoding(exchange: Exchange) -> None:
    """Raise `AskingError` for an answer that is compressed: a byte received is to be a byte and no more."""
    if any(name == b"content-encoding" and value.lower() != b"identity" for name, value in exchange.headers):
        raise AskingError("its answer is compressed, though it was asked for one that is not")


def _posting(replicas: Sequence[ReadyReplica], path: str, content: Mapping[str, Any], asked_by: AskedBy) -> Passing:
    return Passing(
        target=path,
        headers=(JSON,),
        body=msgspec.json.encode(content),
        replicas=replicas,
        asked_for="the service",
        silence=READ_SECONDS,
        caller=asked_by.key,
        tokens=asked_by.tokens,
    )


async def _answer(replica: ReadyReplica, reply: BoundedReply) -> Answer:
    """Read all that comes."""
    body = await reply.read()
    if sum(map(body.count, (b"[", b"{", b","))) > MOST_VALUES:
        return Answer(replica, reply.status, body.decode("utf-8", "replace"))
    try:
        return Answer(replica, reply.status, msgspec.json.decode(body))
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return Answer(replica, reply.status, body.decode("utf-8", "replace"))
