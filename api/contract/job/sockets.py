"""What the kernel says of sockets, for both ends of a job."""

from __future__ import annotations

import socket

LONGEST_PATH = 107
"""Bytes in the path of a Unix socket (unix(7), sun_path)."""


def notice_silence(connection: socket.socket, seconds: int) -> None:
    """Have the kernel end a connection whose peer acknowledges nothing for so long, idle or not (tcp(7))."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 4)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 2)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, seconds * 1000)
