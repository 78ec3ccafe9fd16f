"""Who listens on a port of this host: what /proc/net/tcp and tcp6 tell everybody, proc(5). Works on Python 3.9."""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

_LISTENS = "0A"
"""TCP_LISTEN, as the tables write it."""


class ListeningSocket(NamedTuple):
    """A socket that takes connections."""

    address: str
    """As `written` spells it."""
    uid: int
    inode: str


def listening(port: int) -> Iterator[ListeningSocket]:
    """Yield the sockets that listen on a port; they stand before all others in the tables."""
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            with Path(table).open(encoding="ascii") as lines:
                next(lines)
                for line in lines:
                    words = line.split()
                    if words[3] != _LISTENS:
                        break
                    address, _, number = words[1].partition(":")
                    if int(number, 16) == port:
                        yield ListeningSocket(address, int(words[7]), words[9])
        except FileNotFoundError:  # a kernel without IPv6
            continue


def written(address: str) -> str:
    """Spell an address as the tables do: words of the machine's byte order."""
    packed = socket.inet_pton(socket.AF_INET6 if ":" in address else socket.AF_INET, address)
    words = (packed[start : start + 4] for start in range(0, len(packed), 4))
    return "".join(f"{int.from_bytes(word, sys.byteorder):08X}" for word in words)
