"""The way to a client past ASGI: an answer that is there goes out in one write, and chunks as they come; and a client's
leaving is told, without a task for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

from litestar.types import Scope
from uvicorn.protocols.http.flow_control import CLOSE_HEADER, FlowControl
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

STATE_KEY: Final = "outlet"
"""Where a request's scope carries the outlet of its connection, in `scope["state"]`, if its server has them."""

CHUNKED: Final = (b"transfer-encoding", b"chunked")


class Outlet:
    """One connection of a client. It is for the request that is being answered on it, one after another."""

    def __init__(self, transport: asyncio.Transport, flow: FlowControl) -> None:
        """What goes this way goes after an answer's head and first chunk, or with them: none of it waits then."""
        self._transport = transport
        self.pass_on: Callable[[bytes], object] = transport.write
        """Write a chunk that is framed already: the transport's own, for each call costs."""
        self.is_open = True
        """Whether the client is there, and takes what is written: kept by the protocol, for each chunk asks."""
        self._flow = flow
        self._lost: Callable[[], None] | None = None
        self._cycle: RequestResponseCycle | None = None

    def serve(self, cycle: RequestResponseCycle) -> None:
        """Be the way of this request from now on."""
        self._cycle = cycle

    def write(self, chunk: bytes) -> None:
        """Write a chunk that is not empty, of an answer in chunks (RFC 9112, section 7.1) whose head has been sent."""
        self.pass_on(b"%x\r\n%b\r\n" % (len(chunk), chunk))

    @property
    def takes_head(self) -> bool:
        """Whether an answer may go this way from its head on: nothing of it has gone, and its connection is kept."""
        cycle = self._cycle
        if cycle is None or cycle.response_started or cycle.disconnected or not cycle.keep_alive:
            return False
        return self.is_open and CLOSE_HEADER not in cycle.default_headers and cycle.scope["method"] != "HEAD"

    @property
    def has_begun(self) -> bool:
        """Whether the answer has begun, by ASGI or past it."""
        return self._cycle is not None and self._cycle.response_started

    def begin(self, status: int, headers: Sequence[tuple[bytes, bytes]]) -> None:
        """Write the head of an answer in chunks; they may go by ASGI too. It waits for the first, or the turn's end.

        Raises `ValueError` for headers that would end before they should.
        """
        cycle = self._cycle
        assert cycle is not None
        cycle.transport.write(_head(status, (*cycle.default_headers, *headers, CHUNKED)))
        cycle.response_started = cycle.chunked_encoding = True

    def answer(self, status: int, headers: Sequence[tuple[bytes, bytes]], body: bytes) -> None:
        """Write an answer, of which the headers say how long it is, and note that the request has been answered.

        Raises `ValueError` for headers that would end before they should.
        """
        cycle = self._cycle
        assert cycle is not None
        self._transport.writelines((_head(status, (*cycle.default_headers, *headers)), body))
        cycle.response_started = cycle.response_complete = True
        cycle.message_event.set()
        cycle.on_response()

    def tell(self, lost: Callable[[], None] | None) -> None:
        """Have something called when the client leaves, now if it has left; its request has been read."""
        self._lost = lost
        if lost is not None:
            self._flow.resume_reading()  # who does not read does not see the end
            if self._transport.is_closing():
                lost()

    def lose(self) -> None:
        """Note that the client has left. uvicorn tells only the newest of requests that came one behind the other."""
        self.is_open = False
        if self._cycle is not None and not self._cycle.response_complete:
            self._cycle.disconnected = True
            self._cycle.message_event.set()
        if self._lost is not None:
            self._lost()


def outlet_of(scope: Scope) -> Outlet | None:
    """Return the outlet of a request; `None`: there is ASGI alone."""
    found: Outlet | None = scope["state"].get(STATE_KEY)
    return found


def has_begun(scope: Scope) -> bool:
    """Whether the answer to a request is known to have begun: where there is ASGI alone, who sends has to know."""
    outlet = outlet_of(scope)
    return outlet is not None and outlet.has_begun


def _head(status: int, headers: Sequence[tuple[bytes, bytes]]) -> bytes:
    lines = [b"%b: %b\r\n" % header for header in headers]
    head = b"".join([STATUS_LINE[status], *lines, b"\r\n"])
    ends = len(lines) + 2
    if head.count(b"\n") != ends or head.count(b"\r") != ends:
        raise ValueError("a header has more than one line")
    return head
