"""Whose program has a port of this host."""

from __future__ import annotations

import os
import socket

from api.contract.job.listening import listening, written

EVERYWHERE = ("0.0.0.0", "::")  # noqa: S104


def listening_user(host: str, port: int) -> int | None:
    """Return the user whose program answers under an address of this host; `None`: none is seen."""
    try:
        asked = {str(entry[4][0]) for entry in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)}
        wanted = {written(address.partition("%")[0]) for address in (*asked, *EVERYWHERE)}
        return next((one.uid for one in listening(port) if one.address in wanted), None)
    except OSError:
        return None


def another_users(host: str, port: int) -> str:
    """Say that a port is another user's, without a full stop; "" where it is free, this user's, or can't be told."""
    uid = listening_user(host, port)
    if uid is None or uid == os.getuid():
        return ""
    return f"port {port} is taken by another user's server (uid {uid})"
