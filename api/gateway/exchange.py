"""One connection to an engine, and what is exchanged on it: a request, and an answer as it comes.

Written on the transport, without streams or tasks of its own: a chunk costs one callback on its way in. What an engine
may say is bounded as in `api.contract.asking`: the bytes that are not of the answer's body, and how long it is silent.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import cast

import httptools

MOST_BESIDE = 64 * 1024
"""Bytes of an answer's head, of answers before it (1xx), of trailers."""
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

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._failure: BrokenError | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._silence = 0.0
        self._heard_at = 0.0
        self._is_paused = False
        self._begin()

    def _begin(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._beside = 0
        self._chunks: list[bytes] = []
        self._waiting = 0
        self.headers: list[Header] = []
        self.status = 0
        self._has_head = False
        self._is_whole = False
        self._keeps_alive = False
        self.has_begun = False
        """Whether anything of the answer has come."""

    # --- what the gateway does with it

    @property
    def is_free(self) -> bool:
        """Whether the last answer has come whole and the connection is open."""
        return self._is_whole and self._keeps_alive and self._failure is None

    def has_been_idle(self, seconds: float) -> bool:
        """Whether nothing has been said on it for so long."""
        return self._loop.time() - self._heard_at >= seconds - 0.01

    def send(self, request: Sequence[bytes], silence: float) -> None:
        """Send a request; its answer may be silent for so many seconds."""
        assert self._transport is not None
        self._begin()
        self._silence = silence
        self._heard_at = self._loop.time()
        self._watch_silence()
        self._transport.writelines(request)

    async def head(self) -> None:
        """Wait for the head of the answer; raises `BrokenError`."""
        while not self._has_head:
            await self._more()

    async def chunk(self) -> bytes:
        """Wait for more of the body; nothing once it is whole. Raises `BrokenError`."""
        while not self._chunks:
            if self._is_whole:
                self._stop_watching()
                return b""
            await self._more()
        chunks, self._chunks, self._waiting = self._chunks, [], 0
        if self._is_paused:
            self._is_paused = False
            assert self._transport is not None
            self._transport.resume_reading()
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    def abort(self, why: str = "the exchange was given up") -> None:
        """Close the connection at once, so that the engine stops working for it."""
        self._fail(BrokenError(why))

    async def _more(self) -> None:
        if self._failure is not None:
            raise self._failure
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
        if self._is_whole:
            self._fail(BrokenError("it said more than it was asked"))
            return
        self.has_begun = True
        self._heard_at = self._loop.time()
        self._beside += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._fail(BrokenError("it wants to speak another protocol"))
        except httptools.HttpParserError as error:
            self._fail(BrokenError(f"it does not speak HTTP ({error})"))
        if self._beside > MOST_BESIDE:
            self._fail(BrokenError(f"{MOST_BESIDE:,} bytes came that are no part of an answer"))
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
        self.status = status
        self._has_head = True

    def on_body(self, body: bytes) -> None:
        """Note a piece of the body."""
        self._beside = 0
        self._chunks.append(body)
        self._waiting += len(body)

    def on_message_complete(self) -> None:
        """Note that the answer is whole."""
        if self._has_head:
            self._is_whole = True
            self._keeps_alive = self._parser.should_keep_alive()

    def on_message_begin(self) -> None:
        """Note that it says more than it was asked: that would be taken for the answer to the next request."""
        if self._is_whole:
            self._fail(BrokenError("it said more than it was asked"))

    # --- the rest

    def _watch_silence(self) -> None:
        self._timer = self._loop.call_later(self._silence, self._look_for_silence)

    def _look_for_silence(self) -> None:
        """Fail after a silence; who does not take what came is not the engine's silence."""
        if self._chunks or self._is_paused:
            self._heard_at = self._loop.time()
        left = self._heard_at + self._silence - self._loop.time()
        if left <= 0:
            self._fail(SilentError(f"nothing came for {self._silence:g} s"))
        else:
            self._timer = self._loop.call_later(left, self._look_for_silence)

    def _stop_watching(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _fail(self, failure: BrokenError) -> None:
        if self._failure is None:
            self._failure = failure
        self._stop_watching()
        if self._transport is not None:
            self._transport.abort()
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
