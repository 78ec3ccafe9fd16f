"""Ports for what tests start."""

from __future__ import annotations

import random
import socket

from controller.wrapper.ports import lasting

_kept: list[socket.socket] = []


def bound() -> socket.socket:
    """Bind a port that nobody has, none of those that the kernel gives to who connects."""
    ports = lasting() or (0, 0)
    while True:
        found = socket.socket()
        try:
            found.bind(("", random.randint(*ports)))
        except OSError:
            found.close()
        else:
            return found


def free_port() -> int:
    """Find a port that nobody has, and keep it until this process ends.

    It refuses connections until what is meant to listens there, which must set SO_REUSEADDR, as servers do
    (socket(7)): all others find it taken.
    """
    kept = bound()
    kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # only now: so far whoever has it was an obstacle
    _kept.append(kept)
    return int(kept.getsockname()[1])
