"""Whose socket is at the other end of a connection from this host: of TCP one question to the kernel, sock_diag(7)."""

from __future__ import annotations

import errno
import itertools
import os
import socket
import struct
from dataclasses import dataclass
from typing import Any

from api.contract.job.own_trouble import is_own_trouble

# linux/netlink.h, linux/sock_diag.h, linux/inet_diag.h
NETLINK_SOCK_DIAG = 4
SOCK_DIAG_BY_FAMILY = 20
NLMSG_ERROR = 2
NLM_F_REQUEST = 1
NO_COOKIE = 0xFFFFFFFF
ALL_STATES = 0xFFFFFFFF

_HEADER = struct.Struct("=IHHII")
"""nlmsghdr: length, type, flags, sequence, port."""
_REQUEST = struct.Struct("=BBBxI")
"""inet_diag_req_v2: family, protocol, extensions, states; the socket's id follows."""
_PORTS = struct.Struct("!HH16s16s")
_REST_OF_ID = struct.Struct("=III")
"""inet_diag_sockid: ports, addresses; interface and cookie."""
_PEERS_PORT, _UID_AND_INODE = 6, 64
"""Where they stand in inet_diag_msg."""

_UCRED = struct.Struct("=iII")
"""ucred: pid, uid, gid of who connected (unix(7), SO_PEERCRED)."""

SocketAddress = Any
"""As `socket` gives it for IPv4 and IPv6."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """Who is at the other end of a connection."""

    uid: int | None
    """The user of this host whose socket it is; `None`: it is no living socket of this host."""
    address: str
    is_unix: bool = False
    """Whether it came by a Unix socket, which no relay of TCP connections opens."""


class Peers:
    """Asks the kernel. It holds the one descriptor that this takes, so that asking works when no other is left."""

    def __init__(self) -> None:
        self._kernel = _kernel()
        self._numbers = itertools.count(1)

    def close(self) -> None:
        """Let go of the descriptor."""
        if self._kernel is not None:
            self._kernel.close()

    def of(self, connection: socket.socket) -> Peer:
        """Return who is at the other end; raises `OSError` if it has gone, or this host can't ask."""
        if connection.family == socket.AF_UNIX:
            credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
            return Peer(uid=_UCRED.unpack(credentials)[1], address="", is_unix=True)
        own, peer = connection.getsockname(), connection.getpeername()
        return Peer(uid=self.uid(peer, own), address=str(peer[0]))

    def uid(self, own: SocketAddress, peer: SocketAddress) -> int | None:
        """Return the uid of the socket of this host that is bound to `own` and connected to `peer`, if there is one.

        Raises `OSError` if this host can't ask now. A kernel that can't be asked at all knows of nobody.
        """
        if self._kernel is None:
            return None
        number = next(self._numbers) & 0xFFFFFFFF
        self._kernel.send(_question(own, peer, number))
        while True:
            kind, asked, content = _read(self._kernel.recv(8192))
            if asked == number:
                return _owner(kind, content, peer[1])

    def work(self) -> bool:
        """Whether the kernel tells of a connection to ourselves that it is our own; raises `OSError`."""
        server = socket.create_server(("127.0.0.1", 0))
        with server, socket.create_connection(server.getsockname()) as client:
            return self.uid(client.getsockname(), client.getpeername()) == os.geteuid()


def _kernel() -> socket.socket | None:
    """Return what the kernel is asked by; `None`: it has no sock_diag, or we may not use it."""
    try:
        kernel = socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, NETLINK_SOCK_DIAG)
    except OSError as error:
        if is_own_trouble(error):
            raise
        return None
    kernel.setblocking(False)  # it answers while it is asked
    return kernel


def _question(own: SocketAddress, peer: SocketAddress, number: int) -> bytes:
    family = socket.AF_INET6 if ":" in own[0] else socket.AF_INET
    here, there = (socket.inet_pton(family, host.partition("%")[0]).ljust(16, b"\0") for host in (own[0], peer[0]))
    interface = own[3] if len(own) > 3 else 0
    identity = _PORTS.pack(own[1], peer[1], here, there) + _REST_OF_ID.pack(interface, NO_COOKIE, NO_COOKIE)
    request = _REQUEST.pack(family, socket.IPPROTO_TCP, 0, ALL_STATES) + identity
    return _HEADER.pack(_HEADER.size + len(request), SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST, number, 0) + request


def _read(message: bytes) -> tuple[int, int, bytes]:
    """Return kind, number and content of what the kernel says."""
    length, kind, _, number, _ = _HEADER.unpack_from(message)
    return kind, number, message[_HEADER.size : length]


def _owner(kind: int, content: bytes, port: int) -> int | None:
    """Return the uid that is told. Without an inode nobody holds the socket, and its uid reads 0."""
    if kind == NLMSG_ERROR:
        (code,) = struct.unpack_from("=i", content)
        if -code != errno.ENOENT:
            raise OSError(-code, os.strerror(-code))
        return None
    (connected_to,) = struct.unpack_from("!H", content, _PEERS_PORT)
    uid, inode = struct.unpack_from("=II", content, _UID_AND_INODE)
    # Where none is connected so, a socket that merely listens there is told of.
    return int(uid) if inode != 0 and connected_to == port else None
