"""Connections of clients: who is at their other end, and how long they are waited for."""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

STATE_KEY = "peer"
"""Where a request's scope carries its `api.contract.peers.Peer`, in `scope["state"]`."""
HEAD_SECONDS = 10.0
"""From a connection's beginning, or a later request's first byte, until the head of the request must be whole."""


class TimelyProtocol(HttpToolsProtocol):
    """uvicorn's HTTP protocol, which does not wait for ever for what a client began to say.

    uvicorn itself ends a connection that has been idle since its last answer, unless a byte comes.
    """

    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for the first request."""
        super().connection_made(transport)
        self._wait_for_head()

    def data_received(self, data: bytes) -> None:
        """Take what has come: of the next request, if the one before has been answered."""
        if self._deadline is None and self.cycle is not None and self.cycle.response_complete:
            self._wait_for_head()
        super().data_received(data)

    def on_headers_complete(self) -> None:
        """Begin with the request."""
        self._stop_waiting()
        super().on_headers_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """Let go."""
        self._stop_waiting()
        super().connection_lost(exc)

    def _wait_for_head(self) -> None:
        self._deadline = self.loop.call_later(HEAD_SECONDS, self.timeout_keep_alive_handler)

    def _stop_waiting(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
