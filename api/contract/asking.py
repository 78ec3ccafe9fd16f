"""Asking engines over HTTP/1.1. Nothing that they answer is trusted: it costs bounded time and memory, whatever it is.

The controller asks engines here, on a connection of its own each; what people ask goes the gateway's way, on kept ones,
within bounds of the same kind (`api.gateway.exchange`, `api.gateway.engines`). How a connection is opened is one thing
(`Way`), and what is read from it another. Bounded are the seconds, the bytes in all, and the bytes among which none is
of the answer's body: its head, answers that come before it (1xx), trailers, the sizes of chunks. Compressed answers
are refused, so that a byte received is a byte and no more.
"""

from __future__ import annotations

import asyncio
import contextlib
import string
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TypeVar
from urllib.parse import quote, urlsplit

import httptools

from api.contract.doorless import authorization
from api.contract.doors import Way

CONNECT_SECONDS = 5.0
MOST_BESIDE = 64 * 1024
"""Bytes without any of the body among them."""
_AT_ONCE = 64 * 1024

_Result = TypeVar("_Result")


class AskingError(Exception):
    """The engine has not answered as it should; the message says what it did."""


class NotConnectedError(AskingError):
    """The engine was not asked: there was no connection."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """How much of an engine's answer is waited for."""

    seconds: float
    """In all."""
    silence: float
    """Seconds in which nothing comes."""
    size: int
    """Bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One request to an engine."""

    way: Way
    path: str
    secret: str | None = None
    """Sent as the bearer's token, where there is no door."""
    content: bytes | None = None
    """JSON that is posted; `None`: the path is got."""

    def encoded(self) -> bytes:
        """Return it as it is sent."""
        method = "GET" if self.content is None else "POST"
        lines = [
            f"{method} {quote(self.path, safe=string.punctuation)} HTTP/1.1",
            f"Host: {urlsplit(self.way.base_url).netloc}",
            "Accept: */*",
            "Accept-Encoding: identity",
            "Connection: close",
        ]
        lines += [f"{name}: {value}" for name, value in authorization(self.secret).items()]
        if self.content is not None:
            lines += ["Content-Type: application/json", f"Content-Length: {len(self.content)}"]
        return "\r\n".join([*lines, "", ""]).encode() + (self.content or b"")


@asynccontextmanager
async def asked(question: Question, bounds: Bounds) -> AsyncIterator[Reply]:
    """Ask an engine, and give its reply once the head has come. Leaving closes the connection.

    Raises `NotConnectedError` where there is none, and `AskingError`, as reading the reply does.
    """
    ends = asyncio.get_running_loop().time() + bounds.seconds
    try:
        async with asyncio.timeout(min(CONNECT_SECONDS, bounds.seconds)):
            reader, writer = await question.way.open()
    except TimeoutError as error:
        raise NotConnectedError(f"no connection within {min(CONNECT_SECONDS, bounds.seconds):g} s") from error
    except (OSError, ValueError) as error:  # ValueError: what can't be a host's name
        raise NotConnectedError(str(error) or type(error).__name__) from error
    reply = Reply(reader, bounds, ends)
    try:
        writer.write(question.encoded())
        await reply.begin(writer)
        yield reply
    finally:
        writer.transport.abort()


class Reply:
    """An engine's answer, as it comes."""

    def __init__(self, reader: asyncio.StreamReader, bounds: Bounds, ends: float) -> None:
        self._reader = reader
        self._bounds = bounds
        self._ends = ends
        self._parsing = _Parsing()
        self._size = 0

    @property
    def status(self) -> int:
        """HTTP's."""
        return self._parsing.status

    async def begin(self, writer: asyncio.StreamWriter) -> None:
        """Wait until the question is sent and the head of its answer has come; raises `AskingError`."""
        with contextlib.suppress(OSError):  # who has heard enough may have answered already
            await self._within(writer.drain())
        while not self.status:
            await self._receive()
        if self._parsing.encoding not in (b"", b"identity"):
            raise AskingError("its answer is compressed, though it was asked for one that is not")

    async def pieces(self) -> AsyncIterator[bytes]:
        """Yield the body as it comes; raises `AskingError`."""
        while True:
            if piece := self._parsing.take():
                yield piece
            elif self._parsing.is_whole:
                return
            else:
                await self._receive()

    async def read(self) -> bytes:
        """Return the whole body; raises `AskingError`."""
        return b"".join([piece async for piece in self.pieces()])

    async def _receive(self) -> None:
        try:
            received = await self._within(self._reader.read(_AT_ONCE))
        except OSError as error:
            raise AskingError(f"its answer broke off ({type(error).__name__})") from error
        self._size += len(received)
        self._parsing.feed(received)
        if self._size > self._bounds.size + MOST_BESIDE:
            raise AskingError(f"its answer is longer than {self._bounds.size:,} bytes")

    async def _within(self, work: Awaitable[_Result]) -> _Result:
        """Do what the bounds leave time for."""
        now = asyncio.get_running_loop().time()
        is_last = self._ends <= now + self._bounds.silence
        try:
            async with asyncio.timeout_at(self._ends if is_last else now + self._bounds.silence):
                return await work
        except TimeoutError as error:
            if error.errno is not None:
                raise  # the kernel's word: its node is gone
            seconds = self._bounds.seconds if is_last else self._bounds.silence
            what = "no end of its answer" if self.status and is_last else "no answer"
            raise AskingError(f"{what} within {seconds:g} s") from error


class _Parsing:
    """What has come of one answer. httptools calls the methods whose names begin with `on_`."""

    def __init__(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._pieces: list[bytes] = []
        self._beside = 0
        self._is_framed = False
        self.status = 0
        """0: the head has not come."""
        self.encoding = b""
        self.is_whole = False

    def feed(self, received: bytes) -> None:
        """Take what has come, nothing at its end; raises `AskingError`."""
        if not received and (self._is_framed or not self.status):
            raise AskingError("its answer broke off")
        if not received:
            self.is_whole = True
            return
        self._beside += len(received)
        try:
            self._parser.feed_data(received)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            if not self.is_whole:
                raise AskingError("what it answers is no HTTP") from error
        if self._beside > MOST_BESIDE:
            raise AskingError(f"more than {MOST_BESIDE:,} bytes of its answer hold nothing of its content")

    def take(self) -> bytes:
        """Return what has come of the body since the last call."""
        pieces, self._pieces = self._pieces, []
        return b"".join(pieces)

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        self._is_framed = self._is_framed or name in (b"content-length", b"transfer-encoding")
        if name == b"content-encoding" and not self.status:
            self.encoding = value.strip().lower()

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if status >= 200 and not self.status:
            self.status = status
        elif not self.status:
            self._is_framed, self.encoding = False, b""

    def on_body(self, piece: bytes) -> None:
        if self.status and not self.is_whole:
            self._pieces.append(piece)
            self._beside = 0

    def on_message_complete(self) -> None:
        self.is_whole = bool(self.status)
