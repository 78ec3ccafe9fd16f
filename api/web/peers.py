"""Whose socket is at the other end of a connection from this host: proc(5), /proc/net/tcp and tcp6."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import struct
from collections.abc import Sequence
from pathlib import Path

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

TABLES = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))
STATE_KEY = "connection"
"""Where a request's scope carries its `Connection`, in `scope["state"]`."""

Address = tuple[str, int]


class Connection:
    """One TCP connection, from this end to its peer's. Its peer is looked up once: ports are used again by others."""

    def __init__(self, own: Address, peer: Address) -> None:
        self._own = own
        self._peer = peer
        self._uid: asyncio.Future[int | None] | None = None

    async def peer_uid(self) -> int | None:
        """Return the uid that owns the peer's socket; `None` if it is not a living socket of this host."""
        if self._uid is None:
            self._uid = asyncio.ensure_future(asyncio.to_thread(socket_uid, self._peer, self._own))
        return await asyncio.shield(self._uid)


class PeerProtocol(HttpToolsProtocol):
    """uvicorn's HTTP protocol, whose requests know which connection they came by."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Put the connection where every request's state is copied from."""
        super().connection_made(transport)
        own, peer = transport.get_extra_info("sockname"), transport.get_extra_info("peername")
        if own and peer and transport.get_extra_info("socket").family in (socket.AF_INET, socket.AF_INET6):
            self.app_state = {**self.app_state, STATE_KEY: Connection(own[:2], peer[:2])}


def socket_uid(own: Address, peer: Address, tables: Sequence[Path] = TABLES) -> int | None:
    """Return the uid of the socket of this host that is bound to `own` and connected to `peer`, if there is one."""
    for table in tables:
        pairs = {f"{a} {b}" for a, b in zip(_spellings(own), _spellings(peer), strict=False)}
        try:
            lines = table.read_text().splitlines()
        except OSError:
            continue
        for line in lines:
            if any(pair in line for pair in pairs):
                return _owner(line)
    return None


def _owner(line: str) -> int | None:
    """Return the uid in one line of a table. Without an inode nobody holds the socket, and its uid reads 0."""
    fields = line.split()
    uid, inode = fields[7], fields[9]
    return int(uid) if inode != "0" else None


def _spellings(address: Address) -> list[str]:
    """Return how the tables may write an address: IPv4, also as mapped into IPv6, or IPv6."""
    host, port = address
    ip = ipaddress.ip_address(host.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        ip = ip.ipv4_mapped or ip
    forms = [ip.packed] if ip.version == 6 else [ip.packed, b"\0" * 10 + b"\xff\xff" + ip.packed]
    return [f"{_words(packed)}:{port:04X}" for packed in forms]


def _words(packed: bytes) -> str:
    """Write an address as the kernel does: 32-bit words in the byte order of this machine."""
    return "".join(f"{word:08X}" for word in struct.unpack(f"={len(packed) // 4}I", packed))
