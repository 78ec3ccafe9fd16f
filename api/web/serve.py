"""Serving an application until TERM: uvicorn as all our programs use it."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
from collections.abc import Awaitable, Callable, Sequence

import uvicorn
from litestar import Litestar

from api.contract.accept import Acceptor
from api.contract.peers import Peer
from api.web.peers import STATE_KEY, TimelyProtocol

GRACE_SECONDS = 3
"""For requests in flight after TERM; the whole end takes less than 5 s."""

log = logging.getLogger(__name__)


async def serve(app: Litestar, listening: Sequence[socket.socket]) -> None:
    """Serve on all of these until TERM or INT.

    `app.state.end_streams` ends what would last for as long as its clients listen.
    """
    config = uvicorn.Config(
        app,
        http=TimelyProtocol,
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
    for each in listening:
        log.info("listening on %s", _shown(each))
    await Server(config, app.state.end_streams).serve(sockets=list(listening))


class Server(uvicorn.Server):
    """A server whose requests know who is at the other end of their connection.

    It ends streams first when it is told to stop: they would last as long as their clients do. Before that it stops
    listening: else who is cut off comes back at once, again and again, and nothing else gets done.
    """

    def __init__(self, config: uvicorn.Config, end_streams: Callable[[], Awaitable[None]]) -> None:
        super().__init__(config)
        self._end_streams = end_streams
        self._acceptors: list[Acceptor] = []

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start; what listens is left to our own acceptors."""
        await super().startup(sockets=[])
        self._acceptors = [Acceptor(each, self._protocol, uid=os.getuid()) for each in sockets or ()]
        for acceptor in self._acceptors:
            acceptor.start()

    def _protocol(self, peer: Peer) -> asyncio.Protocol:
        """Make what speaks HTTP on one connection; its `app_state` is what the state of each request begins with."""
        state = {**self.lifespan.state, STATE_KEY: peer}
        made: asyncio.Protocol = self.config.http_protocol_class(  # type: ignore[call-arg]
            config=self.config, server_state=self.server_state, app_state=state
        )
        return made

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop."""
        for acceptor in self._acceptors:
            acceptor.close()
        await self._end_streams()
        await super().shutdown(sockets)


def _shown(listening: socket.socket) -> str:
    address = listening.getsockname()
    return str(address) if listening.family == socket.AF_UNIX else f"{address[0]} port {address[1]}"


def _outlive_signals() -> None:
    """Let the program end in order: after its end uvicorn raises once more the signals that ended it."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
