"""Ports for what tests start."""

from __future__ import annotations

import random
import socket
from contextlib import closing, suppress

from controller.wrapper.ports import lasting


def free_port() -> int:
    """Find a port that nobody listens on, none of those that the kernel gives to who connects."""
    ports = lasting() or (0, 0)
    while True:
        with closing(socket.socket()) as probe, suppress(OSError):
            probe.bind(("", random.randint(*ports)))
            return int(probe.getsockname()[1])
