"""Accepting connections, so that nobody who connects can starve us of descriptors.

Who connects is known before anything is spent on it. Connections of the operator's own user are always taken; all
others, strangers, share a limited number of them, and none of them can take it all: each may hold as many as are
still left for the rest. What goes beyond is closed at once. Where no descriptor is left, one that was kept for it
takes the connection and closes it, so that none waits for an answer that can't come.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import socket
import ssl
import struct
from collections import Counter
from collections.abc import Callable

from api.contract.descriptors import limit
from api.contract.peers import Peer, Peers

MOST_STRANGERS = 2000
"""Their connections at a time; never more than a quarter of the descriptors that this process may have."""
AT_ONCE = 64
"""Connections that are accepted before something else gets its turn."""
HANDSHAKE_SECONDS = 10.0
PAUSE_SECONDS = 0.1
"""Without accepting, where the host lacks what it takes."""
_RESET = struct.pack("ii", 1, 0)
"""linger: what is closed so leaves nothing behind in the kernel."""

log = logging.getLogger(__name__)


class Acceptor:
    """Takes the connections of one listening socket, and gives each its protocol. It lives in one event loop."""

    def __init__(
        self,
        listening: socket.socket,
        protocol: Callable[[Peer], asyncio.BaseProtocol],
        *,
        uid: int,
        lifetime: float | None = None,
        tls: Callable[[], ssl.SSLContext] | None = None,
    ) -> None:
        """`uid` is the operator's; `lifetime`: seconds after which a connection is ended whatever it is at.

        `tls` gives each connection its context.
        """
        self._tls = tls
        self._listening = listening
        self._protocol = protocol
        self._uid = uid
        self._lifetime = lifetime
        self._loop = asyncio.get_running_loop()
        self._peers = Peers()
        self._reserve: int | None = _open_any()
        self._most = min(MOST_STRANGERS, limit() // 4)
        self._strangers: Counter[Peer] = Counter()
        self._beginning: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Accept from now on."""
        self._listening.setblocking(False)
        if self._listening.family != socket.AF_UNIX:
            self._prepare_tcp()
        self._loop.add_reader(self._listening, self._accept)

    def _prepare_tcp(self) -> None:
        try:
            is_told = self._peers.work()
        except OSError:
            is_told = False
        if not is_told:
            log.warning("the kernel does not tell whose connections are: all are strangers'. Run: modprobe tcp_diag")
        self._listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # what is accepted inherits it

    def close(self) -> None:
        """Stop listening; connections that were accepted go on."""
        if self._listening.fileno() >= 0:
            self._loop.remove_reader(self._listening)
        self._listening.close()
        self._peers.close()
        if self._reserve is not None:
            os.close(self._reserve)
            self._reserve = None

    async def until_begun(self) -> None:
        """Wait until every connection that was accepted has its protocol."""
        if self._beginning:
            await asyncio.wait(self._beginning)

    def _accept(self) -> None:
        for _ in range(AT_ONCE):
            try:
                connection, _ = self._listening.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if not self._goes_on_after(error):
                    return
            else:
                self._admit(connection)

    def _goes_on_after(self, error: OSError) -> bool:
        """Whether to accept the next one after such a failure; else it is tried again later."""
        if error.errno in (errno.EMFILE, errno.ENFILE) and self._turn_one_away():
            log.warning("no file descriptor is left: connections are closed unheard", extra={"error": str(error)})
            return True
        if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS):
            log.warning("this host can't accept connections", extra={"error": str(error)})
            self._pause()
            return False
        return True  # who had come has left again (accept(2))

    def _turn_one_away(self) -> bool:
        """Close a connection that waits, with the descriptor that is kept for it; say whether there was one."""
        if self._reserve is None:
            return False
        os.close(self._reserve)
        with contextlib.suppress(OSError):  # it has left again
            self._listening.accept()[0].close()
        self._reserve = _open_any()
        return True

    def _pause(self) -> None:
        self._loop.remove_reader(self._listening)
        self._loop.call_later(PAUSE_SECONDS, self._go_on)

    def _go_on(self) -> None:
        if self._listening.fileno() < 0:
            return
        if self._reserve is None:
            self._reserve = _open_any()
        self._loop.add_reader(self._listening, self._accept)

    def _admit(self, connection: socket.socket) -> None:
        try:
            peer = self._peers.of(connection)
        except OSError as error:
            if error.errno != errno.ENOTCONN:  # it has left again
                log.warning("the kernel does not tell whose connection it is", extra={"error": str(error)})
            connection.close()
            return
        if peer.uid != self._uid:
            if self._strangers[peer] >= self._most - self._strangers.total():
                log.warning(
                    "too many connections of others: more are closed", extra={"uid": peer.uid, "peer": peer.address}
                )
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                connection.close()
                return
            self._strangers[peer] += 1
        beginning = self._loop.create_task(self._begin(connection, peer))
        self._beginning.add(beginning)
        beginning.add_done_callback(self._beginning.discard)

    async def _begin(self, connection: socket.socket, peer: Peer) -> None:
        lasting = _Lasting(self._protocol(peer), lambda: self._has_ended(peer))
        try:
            context = None if self._tls is None else self._tls()
            patience = None if context is None else HANDSHAKE_SECONDS
            transport, _ = await self._loop.connect_accepted_socket(
                lambda: lasting, connection, ssl=context, ssl_handshake_timeout=patience
            )
        except (ssl.SSLError, ConnectionError) as error:
            log.debug("no TLS came about", extra={"error": str(error), "uid": peer.uid, "peer": peer.address})
            connection.close()
            self._has_ended(peer)
            return
        except OSError as error:
            log.warning("a connection could not be taken", extra={"error": str(error)})
            connection.close()
            self._has_ended(peer)
            return
        if self._lifetime is not None:
            self._loop.call_later(self._lifetime, transport.abort)

    def _has_ended(self, peer: Peer) -> None:
        if peer in self._strangers:
            self._strangers[peer] -= 1
            if not self._strangers[peer]:
                del self._strangers[peer]


class _Lasting(asyncio.Protocol):
    """A protocol, and who is told when its connection has ended."""

    def __init__(self, protocol: asyncio.BaseProtocol, ended: Callable[[], None]) -> None:
        assert isinstance(protocol, asyncio.Protocol)
        self._protocol = protocol
        self._ended = ended
        self.data_received = protocol.data_received  # type: ignore[method-assign]  # each call costs

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._protocol.connection_made(transport)

    def eof_received(self) -> bool | None:
        return self._protocol.eof_received()

    def pause_writing(self) -> None:
        self._protocol.pause_writing()

    def resume_writing(self) -> None:
        self._protocol.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._ended()
        self._protocol.connection_lost(exc)


def _open_any() -> int | None:
    """Open something, only to have a descriptor; `None` if there is none left."""
    try:
        return os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
