"""One connection through the door: TLS towards the caller, plain bytes towards the engine, nothing read into them.

TLS is done by hand, over memory: asyncio's own closes both ways where one was closed, and costs more.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
from collections.abc import Callable, Sequence
from typing import cast

READ = 64 * 1024
"""Bytes that are read at a time."""

REST = 5.0
"""Seconds without a byte after which nothing is taken to be open on a connection, if nothing speaks against it."""

LINGER = 5.0
"""Seconds that a caller has to close a connection that the engine has closed, once it has been sent everything."""

MOST_WORDS = 6
"""Bytes that tell how an answer has ended so far."""

_WHOLE = (b"\n0\r\n\r\n", b" 0\r\n\r\n")
"""How an answer ends that ends in an empty line: its last chunk was empty, or its head said that it has no body."""

_buffer = memoryview(bytearray(READ))
"""Whatever any connection has read, for the moment until it is passed on."""


class Caller(asyncio.BufferedProtocol):
    """Who came to the door. Nothing of theirs goes any further before the handshake is over."""

    def __init__(self, context: ssl.SSLContext, on_end: Callable[[Caller], None]) -> None:
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._on_end = on_end
        self.handshake: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()
        """The protocol (ALPN) that was agreed on; or why there is none."""
        self.kind = ""
        """Of client."""
        self.engine: EngineSide | None = None
        self._said_all = self._heard_all = self._hurries = False
        self._moved_at = time.monotonic()
        self._last_words: bytes | None = b""
        """How what the engine said last ended; `None`: the caller has said something since."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self.transport = cast("asyncio.Transport", transport)

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002
        """Return where to read to."""
        return _buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Take what was read."""
        self._incoming.write(_buffer[:nbytes])
        if self.handshake.done():
            self._take()
        else:
            self._shake_hands()

    def common_name(self) -> str:
        """Return the name in its certificate: the kind of client that it is."""
        subject = cast("Sequence[Sequence[tuple[str, str]]]", (self._tls.getpeercert() or {})["subject"])
        return dict(pair for part in subject for pair in part)["commonName"]

    def join(self, engine: EngineSide) -> None:
        """Pass everything on from here."""
        self.engine = engine
        self.transport.resume_reading()
        self._take()

    def rests(self) -> bool:
        """Whether no request is open, as far as that can be told without reading what passes.

        It was the engine that spoke last, a while ago, not in the midst of an answer, and all of it is with the caller.
        """
        words = self._last_words
        if words is None or goes_on(words) or self.transport.get_write_buffer_size() > 0:
            return False
        return time.monotonic() >= self._moved_at + REST

    def pass_on(self, data: memoryview) -> None:
        """Send on what the engine says."""
        self._moved_at = time.monotonic()
        words = bytes(data[-MOST_WORDS:])
        self._last_words = words if len(words) == MOST_WORDS else ((self._last_words or b"") + words)[-MOST_WORDS:]
        self.send(data)

    def send(self, data: memoryview | bytes) -> None:
        """Send bytes on their way."""
        if self._heard_all or self.transport.is_closing():
            return
        view = memoryview(data)
        while view:
            view = view[self._tls.write(view) :]
        self._flush()

    def finish(self) -> None:
        """Say that nothing will follow, and wait a little for the caller to close."""
        self._say_goodbye()
        if self._said_all or self._hurries:
            self.transport.close()
        else:
            _end(self.transport)
            self._linger()

    def hurry(self) -> None:
        """Close as soon as everything is sent: now, or once the engine has ended."""
        self._hurries = True
        if self._heard_all or self.engine is None:
            self.close()

    def close(self) -> None:
        """Close, once what was sent is gone."""
        self._say_goodbye()
        self.transport.close()

    def pause_writing(self) -> None:
        """Hold the engine up: the caller is slower."""
        if self.engine is not None:
            self.engine.transport.pause_reading()

    def resume_writing(self) -> None:
        """Let the engine go on."""
        if self.engine is not None:
            self.engine.transport.resume_reading()

    def eof_received(self) -> bool:
        """Go on for who has said that it is the end; else it is cut off, and the engine may stop."""
        return self._said_all and not self._heard_all

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the engine."""
        if self.engine is not None:
            self.engine.transport.abort()
        if not self.handshake.done():
            self.handshake.set_exception(exc or ConnectionResetError())
            self.handshake.exception()  # nobody need ask
        self._on_end(self)

    def _shake_hands(self) -> None:
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            self._flush()
        except ssl.SSLError as error:
            self._flush()  # why
            self.handshake.set_exception(error)
        else:
            self.transport.pause_reading()
            self._flush()
            self.handshake.set_result(self._tls.selected_alpn_protocol())

    def _take(self) -> None:
        """Pass on what has been read, decrypted; without an engine it is dropped."""
        while not self._said_all:
            try:
                data = self._tls.read(READ)
            except ssl.SSLWantReadError:
                break
            except ssl.SSLZeroReturnError:
                data = b""
            except ssl.SSLError:
                self.transport.abort()
                return
            if not data:
                self._end_of_caller()
            elif self.engine is not None:
                self._moved_at, self._last_words = time.monotonic(), None
                self.engine.transport.write(data)
        self._flush()

    def _end_of_caller(self) -> None:
        self._said_all = True
        if self._heard_all or self.engine is None:
            self.close()
        else:
            _end(self.engine.transport)

    def _say_goodbye(self) -> None:
        if not self._heard_all:
            with contextlib.suppress(ssl.SSLError):  # that the other has not said it yet, too
                self._tls.unwrap()
            self._flush()
            self._heard_all = True

    def _linger(self) -> None:
        """Close in the end; earlier the kernel would take back what is under way (RFC 1122, 4.2.2.13)."""
        if self.transport.is_closing():
            return
        loop = asyncio.get_running_loop()
        if self.transport.get_write_buffer_size() > 0:
            loop.call_later(1.0, self._linger)
        else:
            loop.call_later(LINGER, self.transport.close)

    def _flush(self) -> None:
        data = self._outgoing.read()
        if data and not self._heard_all:
            self.transport.write(data)


class EngineSide(asyncio.BufferedProtocol):
    """The connection to the engine for one caller."""

    transport: asyncio.Transport

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self.transport = cast("asyncio.Transport", transport)

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002
        """Return where to read to."""
        return _buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Pass on what the engine says."""
        self._caller.pass_on(_buffer[:nbytes])

    def pause_writing(self) -> None:
        """Hold the caller up: the engine is slower."""
        self._caller.transport.pause_reading()

    def resume_writing(self) -> None:
        """Let the caller go on."""
        self._caller.transport.resume_reading()

    def eof_received(self) -> bool:
        """Tell the caller that nothing will follow; it may still be saying something."""
        self._caller.finish()
        return True

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        """Tell the caller."""
        self._caller.finish()


def goes_on(words: bytes) -> bool:
    """Whether an answer whose bytes end so far in these is one in chunks, and has more of them to come.

    It may pause for long: before its first token a request waits for its turn. Its head and each of its chunks end in
    CRLF, all of it in an empty chunk (RFC 9112, 7.1).
    """
    return words.endswith(b"\r\n") and not words.endswith(_WHOLE)


def _end(transport: asyncio.Transport) -> None:
    """Close one way."""
    with contextlib.suppress(OSError):  # the other way is closed too
        transport.write_eof()
