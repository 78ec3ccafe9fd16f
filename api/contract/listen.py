"""Listening on an address, and what is said where that can't be."""

from __future__ import annotations

import os
import socket

from api.contract.exits import Exit, ExitError

BACKLOG = 2048
"""Connections that may wait to be accepted: one that finds no room is tried again by its client, a second later."""


class PortError(ExitError):
    """The address can't be listened on."""

    code = Exit.UNREACHABLE


def listen(host: str, port: int, *, who: str, remedy: str) -> socket.socket:
    """Bind an address, so that clients may connect from now on; raises `PortError` in the name of `who` listens."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        reason = error.strerror if isinstance(error, socket.gaierror) else os.strerror(error.errno or 0)
        raise PortError(f"{who} can't listen on {host} port {port}: {reason}. {remedy}") from error
