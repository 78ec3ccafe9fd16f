"""One connection to an engine, and what is exchanged on it: a request, and an answer as it comes.

Written on the transport, without streams or tasks of its own: a chunk costs one callback on its way in. What an engine
may say is bounded as in `api.contract.asking`: the bytes that are not of the answer's body, and how long it is silent.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import cast

import httptools

from api.web.outlet import Outlet

MOST_BESIDE = 64 * 1024
"""Bytes of an answer's head, of answers before it (1xx), of trailers."""
HIGHEST_STATUS = 599
"""RFC 9110, section 15; our own server says no other."""
BODILESS = (204, 304)
"""What has no body, whatever is said of its length (RFC 9110, 6.4.1)."""
MOST_WAITING = 256 * 1024
"""Bytes that have come and were not taken: then the engine has to wait."""

Header = tuple[bytes, bytes]


class BrokenError(Exception):
    """The engine has not answered as it should; the message says what it did."""


class SilentError(BrokenError):
    """It said nothing for too long."""


class Exchange(asyncio.Protocol):
    """A connection. It carries one request after another; `is_free` says whether it can carry the next.

    httptools calls the methods whose names begin with `on_`.
    """

    def __init__(self, own_lines: bytes = b"") -> None:
        """`own_lines` are those of a request's head that are the same for each request to this engine."""
        self.own_lines = own_lines
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._failure: BrokenError | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        """It stands on from one request to the next."""
        self._timer_at = 0.0
        self._is_watched = False
        self._silence = 0.0
        self._first_byte = 0.0
        self._heard_at = 0.0
        self._is_paused = False
        self._outlet: Outlet | None = None
        self._begin()

    def _begin(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._beside = 0
        self._chunks: list[bytes] = []
        self._waiting = 0
        self._reads_along: Callable[[bytes], object] | None = None
        self._is_between_chunks = False
        """Whether what comes next is the size of a chunk."""
        self.headers: list[Header] = []
        self.status = 0
        self._is_head = False
        self._has_head = False
        self._is_whole = False
        self._keeps_alive = False
        self._has_body = False
        self.received = 0
        """Bytes of the answer that have come, but for chunks that are passed on unparsed."""

    # --- what the gateway does with it

    @property
    def is_free(self) -> bool:
        """Whether the last answer has come whole and the connection is open."""
        return self._is_whole and self._keeps_alive and self._failure is None

    def has_been_idle(self, seconds: float) -> bool:
        """Whether nothing has been said on it for so long."""
        return self._loop.time() - self._heard_at >= seconds - 0.01

    def send(
        self, request: Sequence[bytes], silence: float, first_byte: float | None = None, *, is_head: bool = False
    ) -> None:
        """Send a request; its answer's body may be silent for so many seconds, and until its first byte for others.

        `is_head`: the answer has none, whatever its head says (RFC 9110, 9.3.2).
        """
        assert self._transport is not None
        self._begin()
        self._is_head = is_head
        self._silence = silence
        self._first_byte = silence if first_byte is None else first_byte
        self._heard_at = self._loop.time()
        self._watch_silence()
        self._transport.writelines(request)

    async def head(self) -> None:
        """Wait for the head of the answer; raises `BrokenError`."""
        while not self._has_head:
            await self._more()

    @property
    def is_whole(self) -> bool:
        """Whether all of the body has come."""
        return self._is_whole

    @property
    def is_over(self) -> bool:
        """Whether all of the body has come and was taken."""
        return self._is_whole and not self._chunks

    async def chunk(self) -> bytes:
        """Wait for more of the body; nothing once it is whole. Raises `BrokenError`."""
        while not self._chunks:
            if self._is_whole:
                self._is_watched = False
                return b""
            await self._more()
        if self._is_whole:
            self._is_watched = False
        if self._is_paused:
            self._is_paused = False
            assert self._transport is not None
            self._transport.resume_reading()
        return self._taken()

    def read_along(self, reads: Callable[[bytes], object]) -> None:
        """Have somebody read what is taken of the body, whichever way it goes."""
        self._reads_along = reads

    async def pass_to(self, outlet: Outlet) -> None:
        """Write what comes of the body as it comes, until the outlet takes no more, or this was all."""
        self._outlet = outlet
        try:
            if not self._chunks and not self._is_whole:
                await self._more()
        finally:
            self._outlet = None

    def _taken(self) -> bytes:
        chunks, self._chunks, self._waiting = self._chunks, [], 0
        taken = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        if self._reads_along is not None:
            self._reads_along(taken)
        return taken

    def abort(self, why: str = "the exchange was given up") -> None:
        """Close the connection at once, so that the engine stops working for it."""
        self._fail(BrokenError(why))

    async def _more(self) -> None:
        if self._failure is not None:
            # A fresh one: what is raised holds all frames on its way, and they this.
            raise type(self._failure)(*self._failure.args)
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    # --- what asyncio tells

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's are none by class

    def data_received(self, data: bytes) -> None:
        """Take what has come."""
        outlet = self._outlet
        if (
            self._is_between_chunks
            and outlet is not None
            and data.startswith(line := _size_line(len(data)))
            and data.endswith(b"\r\n")  # one whole chunk, as most come: it goes on unparsed
            and not self._chunks
            and outlet.is_open
        ):
            self._heard_at = self._loop.time()
            outlet.pass_on(data)
            if self._reads_along is not None:
                self._reads_along(data[len(line) : -2])
            return
        if self._is_whole:
            self._fail(BrokenError("it said more than it was asked"))
            return
        self.received += len(data)
        self._heard_at = self._loop.time()
        self._beside += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._fail(BrokenError("it wants to speak another protocol"))
        except httptools.HttpParserError as error:
            self._fail(BrokenError(f"it does not speak HTTP ({error})"))
        self._is_between_chunks &= data.endswith(b"\r\n")  # else the next size has begun
        if self._beside > MOST_BESIDE:
            self._fail(BrokenError(f"{MOST_BESIDE:,} bytes came that are no part of an answer"))
        if self._outlet is not None and self._chunks and not self._is_whole and self._outlet.is_open:
            self._outlet.write(self._taken())
            return
        if self._waiting > MOST_WAITING and not self._is_paused and self._transport is not None:
            self._is_paused = True
            self._transport.pause_reading()
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        """Note the end."""
        if self._has_head and not self._is_whole and exc is None:
            self._end_without_length()
        self._fail(BrokenError("the connection broke off" if exc is None else f"the connection broke off ({exc})"))

    def _end_without_length(self) -> None:
        """Take the end for the answer's, where nothing else says where it ends (RFC 9112, 6.3)."""
        names = {name for name, _ in self.headers}
        self._is_whole = not names & {b"content-length", b"transfer-encoding"}

    # --- what httptools tells

    def on_header(self, name: bytes, value: bytes) -> None:
        """Note a header, or a trailer, which nobody asked for."""
        if not self._has_head:
            self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """Note that the head is whole; of what came before the answer (1xx) forget it."""
        status = self._parser.get_status_code()
        if status < 200:
            self.headers = []
            return
        if status > HIGHEST_STATUS:
            self._fail(BrokenError(f"it answered with status {status}, which is none"))
            return
        if status in BODILESS:
            self.headers = [header for header in self.headers if header[0] != b"content-length"]
        self.status = status
        self._has_head = True
        if self._is_head:
            self.on_message_complete()

    def on_chunk_header(self) -> None:
        """Note that a chunk has begun."""
        self._is_between_chunks = False

    def on_chunk_complete(self) -> None:
        """Note that it is whole."""
        self._is_between_chunks = True

    def on_body(self, body: bytes) -> None:
        """Note a piece of the body."""
        if self._is_head:
            self._fail(BrokenError("it said more than it was asked"))
            return
        self._beside = 0
        self._has_body = True
        self._chunks.append(body)
        self._waiting += len(body)

    def on_message_complete(self) -> None:
        """Note that the answer is whole."""
        self._is_between_chunks = False
        if self._has_head:
            self._is_whole = True
            self._keeps_alive = self._parser.should_keep_alive()

    def on_message_begin(self) -> None:
        """Note that it says more than it was asked: that would be taken for the answer to the next request."""
        if self._is_whole:
            self._fail(BrokenError("it said more than it was asked"))

    # --- the rest

    def _watch_silence(self) -> None:
        self._is_watched = True
        self._look_at(self._heard_at + min(self._silence, self._first_byte))

    def _look_at(self, when: float) -> None:
        if self._timer is not None:
            if self._timer_at <= when:
                return
            self._timer.cancel()
        self._timer_at = when
        self._timer = self._loop.call_at(when, self._look_for_silence)

    def _look_for_silence(self) -> None:
        """Fail after a silence; who does not take what came is not the engine's silence."""
        self._timer = None
        if not self._is_watched:
            return
        if self._chunks or self._is_paused:
            self._heard_at = self._loop.time()
        most = self._silence if self._has_body else self._first_byte
        left = self._heard_at + most - self._loop.time()
        if left <= 0:
            self._fail(SilentError(f"nothing came for {most:g} s"))
        else:
            self._look_at(self._loop.time() + min(left, self._silence))

    def _fail(self, failure: BrokenError) -> None:
        if self._failure is None:
            self._failure = failure
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._transport is not None:
            self._transport.abort()
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


@lru_cache(maxsize=4096)
def _size_line(length: int) -> bytes:
    """Return how a chunk begins that with its frame is so long (RFC 9112, section 7.1), as most write its size.

    For the few lengths that no chunk has it is what is longer than such a chunk, so that none begins with it.
    """
    for size in range(max(length - 10, 1), length - 4):
        line = b"%x\r\n" % size
        if len(line) + size + 2 == length:
            return line
    return bytes(length + 1)
