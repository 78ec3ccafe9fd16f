"""Connections of clients: who is at their other end, and how long they are waited for."""

from __future__ import annotations

import asyncio
import select
from typing import cast

from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from api.web.corking import CorkedTransport
from api.web.outlet import STATE_KEY as OUTLET
from api.web.outlet import Outlet

STATE_KEY = "peer"
"""Where a request's scope carries its `api.contract.peers.Peer`, in `scope["state"]`."""
HEAD_SECONDS = 10.0
"""From a connection's beginning, or a later request's first byte, until the head of the request must be whole."""
LOOK_SECONDS = 0.2
"""Between two looks whether a client has left of whom nothing is read: further requests of its wait for their turn."""


class TimelyProtocol(HttpToolsProtocol):
    """uvicorn's HTTP protocol, which does not wait for ever for what a client began to say.

    As uvicorn's it ends a connection that has been idle since its last answer, unless a byte comes; but without a new
    timer for each answer, which takes a fortieth of a request of the gateway.
    """

    _deadline: asyncio.TimerHandle | None = None
    _idle_since: float | None = None
    """Since when all is answered and nothing comes; `None`: it is not so."""
    _idle_timer: asyncio.TimerHandle | None = None
    """It stands on from one answer to the next."""
    _look: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for the first request."""
        self._corked = CorkedTransport(transport)
        super().connection_made(cast("asyncio.Transport", self._corked))
        self._outlet = self.app_state[OUTLET] = Outlet(transport, self.flow)
        self._wait_for_head()

    def data_received(self, data: bytes) -> None:
        """Take what has come, and wait for the rest of a head that was not whole."""
        self._idle_since = None
        super().data_received(data)
        if self._deadline is None and self.cycle is not None and self.cycle.response_complete:
            self._wait_for_head()

    def on_headers_complete(self) -> None:
        """Begin with the request, or have it wait for its turn."""
        self._stop_waiting()
        super().on_headers_complete()
        if self.pipeline and self._look is None:
            self._look = self.loop.call_later(LOOK_SECONDS, self._end_if_gone)

    def connection_lost(self, exc: Exception | None) -> None:
        """Let go."""
        self._stop_waiting()
        for timer in (self._idle_timer, self._look):
            if timer is not None:
                timer.cancel()
        self._corked.lose()
        super().connection_lost(exc)
        self._outlet.lose()

    def pause_writing(self) -> None:
        """Wait until the client takes what it was sent."""
        self._outlet.is_open = False
        super().pause_writing()

    def resume_writing(self) -> None:
        """Go on: it has."""
        self._outlet.is_open = True
        super().resume_writing()

    def on_response_complete(self) -> None:
        """Wait for the next request, unless it is here already."""
        if self.pipeline or self.transport.is_closing():
            super().on_response_complete()
            return
        self.server_state.total_requests += 1
        self.flow.resume_reading()
        self._idle_since = self.loop.time()
        if self._idle_timer is None:
            self._idle_timer = self.loop.call_later(self.timeout_keep_alive, self._end_if_idle)

    def _end_if_idle(self) -> None:
        self._idle_timer = None
        if self._idle_since is None:
            return  # the next answer begins anew
        left = self._idle_since + self.timeout_keep_alive - self.loop.time()
        if left > 0:
            self._idle_timer = self.loop.call_later(left, self._end_if_idle)
        else:
            self.timeout_keep_alive_handler()

    def _end_if_gone(self) -> None:
        self._look = None
        if not self.pipeline or self.transport.is_closing():
            return
        if _has_hung_up(self.transport.get_extra_info("socket").fileno()):
            self.transport.abort()
        else:
            self._look = self.loop.call_later(LOOK_SECONDS, self._end_if_gone)

    def close_after_answer(self) -> None:
        """Close after the answer to what is being asked; one that has begun has said otherwise, and stands."""
        if self.cycle is not None and not self.cycle.response_started:
            self.cycle.keep_alive = False

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        """Begin to answer one of the requests, which may come one behind the other; the outlet is its own."""
        self._outlet.serve(cycle)
        super()._start_asgi_task(cycle, app)

    def _wait_for_head(self) -> None:
        self._deadline = self.loop.call_later(HEAD_SECONDS, self.timeout_keep_alive_handler)

    def _stop_waiting(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


def _has_hung_up(descriptor: int) -> bool:
    """Whether the other end says nothing more, whatever it said before and was not read (poll(2), POLLRDHUP)."""
    poll = select.poll()
    poll.register(descriptor, select.POLLRDHUP)
    return bool(poll.poll(0))
