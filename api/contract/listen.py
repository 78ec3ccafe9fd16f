"""Listening on an address, and what is said where that can't be."""

from __future__ import annotations

import errno
import os
import socket
import stat
from pathlib import Path

from api.contract.exits import Exit, ExitError
from api.contract.listeners import another_users

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
        if error.errno == errno.EADDRINUSE:
            reason = another_users(host, port) or reason
        raise PortError(f"{who} can't listen on {host} port {port}: {reason}. {remedy}") from error


def listen_locally(path: Path, *, who: str) -> socket.socket:
    """Listen on a Unix socket of mode 0600; one that a dead server left there is replaced.

    Its folder is to be this user's alone. Raises `PortError` in the name of `who` listens.
    """
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _remove_dead(path)
        listening.bind(str(path))
        path.chmod(0o600)  # before anybody can connect
        listening.listen(BACKLOG)
    except OSError as error:
        listening.close()
        raise PortError(f"{who} can't listen on {path}: {error.strerror or error}.") from error
    return listening


def _remove_dead(path: Path) -> None:
    """Remove a socket that nobody listens on. Raises `OSError` where somebody does, or where it is no socket."""
    try:
        is_socket = stat.S_ISSOCK(path.lstat().st_mode)
    except FileNotFoundError:
        return
    if not is_socket:
        raise OSError(errno.EEXIST, "there is something else. See what it is, and move it away")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.setblocking(False)  # a server too busy to accept is alive
        refused = client.connect_ex(str(path)) == errno.ECONNREFUSED
    if not refused:
        raise OSError(errno.EADDRINUSE, "another program listens there: stop it, or set state_dir to another folder")
    path.unlink()
