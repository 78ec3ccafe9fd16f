"""Serving an application until TERM: uvicorn as all our programs use it."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import signal
import socket
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import cast

import uvicorn
from litestar import Litestar

from api.contract.accept import Acceptor
from api.contract.peers import Peer
from api.contract.served_tls import ServedTls
from api.web.peers import STATE_KEY, TimelyProtocol

GRACE_SECONDS = 3
"""For requests in flight after TERM; the whole end takes less than 5 s."""
KEPT_SECONDS = 20
"""For which an idle connection is kept: longer than usual clients keep theirs (5 s to 15 s), who would else send a
request just as it is closed.
"""
KNOWING_SECONDS = 10.0
"""For which the application may read what it needs to know before it serves; later it says so to who asks."""

YOUNG_OBJECTS = 2_000
"""After so many new ones the garbage collector looks at them. With Python's own 700, a sixth of a request's time is
spent on looking at what requests under way hold.
"""

log = logging.getLogger(__name__)


async def serve(
    app: Litestar,
    listening: Sequence[socket.socket],
    *,
    tls: ServedTls | None = None,
    drain: float = 0.0,
    ready: Callable[[], None] = lambda: None,
) -> None:
    """Serve on all of these until TERM or INT; `ready` is called once that has begun.

    `tls`: HTTPS is served, but for Unix sockets. After QUIT nothing more is accepted, and the end comes when all is
    answered, or after `drain` seconds. Others may have the same sockets: what waits in them is theirs.

    `app.state.until_known` waits until the application can answer, `end_watches` ends what would last for as long as
    its clients listen, and `end_streams` all that would last.
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
        timeout_keep_alive=KEPT_SECONDS,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )
    _outlive_signals()
    gc.freeze()  # what stands from the start is no garbage, however often it is looked at
    gc.set_threshold(YOUNG_OBJECTS)
    server = Server(config, app.state.end_streams, app.state.until_known, ready, tls)
    serving = asyncio.create_task(server.serve(sockets=list(listening)))
    asyncio.get_running_loop().add_signal_handler(signal.SIGQUIT, server.leave, app.state.end_watches, drain)
    await serving


class Server(uvicorn.Server):
    """A server whose requests know who is at the other end of their connection.

    It ends streams first when it is told to stop: they would last as long as their clients do. Before that it stops
    listening: else who is cut off comes back at once, again and again, and nothing else gets done.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        end_streams: Callable[[], Awaitable[None]],
        until_known: Callable[[], Awaitable[None]] | None = None,
        ready: Callable[[], None] = lambda: None,
        tls: ServedTls | None = None,
    ) -> None:
        super().__init__(config)
        self._tls = tls
        self._end_streams = end_streams
        self._until_known = until_known
        self._ready = ready
        self._acceptors: list[Acceptor] = []
        self._leaving: asyncio.Task[None] | None = None
        self._leaves_by: float | None = None
        """Until then, of `time.monotonic`, what it is at is finished."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start; what listens is left to our own acceptors."""
        await super().startup(sockets=[])
        if self._until_known:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(KNOWING_SECONDS):
                    await self._until_known()
        self._acceptors = [self._acceptor(each) for each in sockets or ()]
        for acceptor, each in zip(self._acceptors, sockets or (), strict=True):
            acceptor.start()
            log.info("listening on %s", _shown(each))
        self._ready()

    def _acceptor(self, listening: socket.socket) -> Acceptor:
        tls = None if self._tls is None or listening.family == socket.AF_UNIX else self._tls.context
        return Acceptor(listening, self._protocol, uid=os.getuid(), tls=tls)

    def leave(self, end_watches: Callable[[], Awaitable[None]], drain: float) -> None:
        """Accept nothing more, and stop once all is answered, or after so many seconds."""
        if self._leaving is None:
            log.info("another process takes over; what is being answered is finished", extra={"within": drain})
            self._leaving = asyncio.create_task(self._leave(end_watches, drain))

    async def _leave(self, end_watches: Callable[[], Awaitable[None]], drain: float) -> None:
        ends = time.monotonic() + drain
        for acceptor in self._acceptors:
            acceptor.close()
        self._close_after_answers()
        await end_watches()
        await asyncio.gather(*(acceptor.until_begun() for acceptor in self._acceptors))
        self._leaves_by = ends

    async def on_tick(self, counter: int) -> bool:
        """Look, ten times a second, whether to stop."""
        if self._leaves_by is not None and (not self.server_state.connections or self._leaves_by < time.monotonic()):
            self.should_exit = True
        return await super().on_tick(counter)

    def _close_after_answers(self) -> None:
        """Have each connection closed after its next answer, which says so.

        None is closed before: a request may be on its way. One that stays idle is closed when its time is over.
        """
        self.config.encoded_headers.append((b"connection", b"close"))
        self.server_state.default_headers = [*self.server_state.default_headers, (b"connection", b"close")]
        for connection in self.server_state.connections:
            cast(TimelyProtocol, connection).close_after_answer()

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
