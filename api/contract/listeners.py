"""Whose sockets listen on this host's ports: what /proc/net/tcp and tcp6 tell everybody, proc(5)."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

_TABLES = {socket.AF_INET: Path("/proc/net/tcp"), socket.AF_INET6: Path("/proc/net/tcp6")}
_LISTENS = "0A"
_LOCAL, _STATE, _UID = 1, 3, 7
"""Where they stand in a line."""


def listening_user(host: str, port: int) -> int | None:
    """Return the user whose program answers under an address of this host; `None`: none is seen."""
    try:
        asked = {entry[4][0] for entry in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)}
    except OSError:
        return None
    return next((uid for address, number, uid in _listening() if number == port and address in asked), None)


def another_users(host: str, port: int) -> str:
    """Say that a port is another user's, without a full stop; "" where it is free, this user's, or can't be told."""
    uid = listening_user(host, port)
    if uid is None or uid == os.getuid():
        return ""
    return f"port {port} is taken by another user's server (uid {uid})"


def _listening() -> Iterator[tuple[str, int, int]]:
    """Yield address, port and user; one that listens everywhere under each address of this host's loopback."""
    for family, table in _TABLES.items():
        with contextlib.suppress(OSError):
            for line in table.read_text().splitlines()[1:]:
                fields = line.split()
                if fields[_STATE] == _LISTENS:
                    address, _, port = fields[_LOCAL].partition(":")
                    for name in _names(family, address):
                        yield name, int(port, 16), int(fields[_UID])


def _names(family: socket.AddressFamily, written: str) -> tuple[str, ...]:
    """Return the addresses that a table's word stands for: words of 32 bits, each as this host keeps it."""
    words = [bytes.fromhex(written[i : i + 8]) for i in range(0, len(written), 8)]
    packed = b"".join(int.from_bytes(word).to_bytes(4, "little") for word in words)
    if any(packed):
        return (socket.inet_ntop(family, packed),)
    return ("0.0.0.0", "127.0.0.1") if family == socket.AF_INET else ("::", "::1", "0.0.0.0", "127.0.0.1")  # noqa: S104
