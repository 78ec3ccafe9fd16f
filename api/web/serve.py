"""Serving an application until TERM: uvicorn as all our programs use it."""

from __future__ import annotations

import logging
import signal
import socket
from collections.abc import Awaitable, Callable

import uvicorn
from litestar import Litestar

from api.web.peers import PeerProtocol

BACKLOG = 2048
GRACE_SECONDS = 3
"""For requests in flight after TERM; the whole end takes less than 5 s."""

log = logging.getLogger(__name__)


async def serve(app: Litestar, listening: socket.socket) -> None:
    """Serve until TERM or INT. `app.state.end_streams` ends what would last for as long as its clients listen."""
    config = uvicorn.Config(
        app,
        http=PeerProtocol,
        ws="none",
        lifespan="on",
        # The client's address is the connection's: a header must not be able to say otherwise.
        proxy_headers=False,
        access_log=False,
        log_config=None,
        server_header=False,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )
    _outlive_signals()
    log.info("listening on %s port %s", *listening.getsockname()[:2])
    await Server(config, app.state.end_streams).serve(sockets=[listening])


class Server(uvicorn.Server):
    """A server that ends streams first when it is told to stop: they would last as long as their clients do.

    Before that it stops listening: else who is cut off comes back at once, again and again, and nothing else gets done.
    """

    def __init__(self, config: uvicorn.Config, end_streams: Callable[[], Awaitable[None]]) -> None:
        super().__init__(config)
        self._end_streams = end_streams

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop."""
        for server in self.servers:
            server.close()
        await self._end_streams()
        await super().shutdown(sockets)


def _outlive_signals() -> None:
    """Let the program end in order: after its end uvicorn raises once more the signals that ended it."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
