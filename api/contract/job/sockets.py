"""What the kernel says of sockets, for both ends of a job."""

from __future__ import annotations

import socket

LONGEST_PATH = 107
"""Bytes in the path of a Unix socket (unix(7), sun_path)."""


def notice_silence(connection: socket.socket, seconds: int) -> None:
    """Have the kernel end a connection whose peer acknowledges nothing for so long, idle or not (tcp(7))."""
    notice_death(connection)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, seconds * 1000)


def notice_death(connection: socket.socket) -> None:
    """Have the kernel end a connection whose peer's host has been gone for 10 s while we wait for it (tcp(7)).

    A peer that lives may be as slow as it likes, at reading too: that is what `notice_silence` takes for silence.
    """
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 4)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 2)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
