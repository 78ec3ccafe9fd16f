"""Listening on an address, and what is said where that can't be."""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from api.contract.exits import Exit, ExitError
from api.contract.listeners import another_users
from api.contract.settings import GatewaySettings, Settings

BACKLOG = 2048
"""Connections that may wait to be accepted: one that finds no room is tried again by its client, a second later."""


class PortError(ExitError):
    """The address can't be listened on."""

    code = Exit.UNREACHABLE


@contextmanager
def held(sockets: Sequence[socket.socket]) -> Iterator[Sequence[socket.socket]]:
    """Close them at the end."""
    try:
        yield sockets
    finally:
        for each in sockets:
            each.close()


def listen_as_set(settings: Settings) -> list[socket.socket]:
    """Bind the API's address; raises `PortError`."""
    remedy = "Stop what listens there, or set api.port (--port) or api.host to another."
    return [listen(settings.api.host, settings.api.port, who="The API", remedy=remedy)]


def listen_locally_as_set(settings: Settings) -> list[socket.socket]:
    """Listen on the API's Unix socket, if it is to have one; raises `PortError`."""
    return [listen_locally(settings.api_socket, who="The API")] if settings.api.require_key else []


def listen_for_gateway(settings: GatewaySettings) -> list[socket.socket]:
    """Bind the gateway's address once for each worker, so that the kernel deals connections out; raises `PortError`."""

    def bound(port: int, *, is_shared: bool) -> socket.socket:
        remedy = "Stop what listens there, or set gateway.port (--port) or gateway.host to another."
        return listen(settings.host, port, who="The gateway", remedy=remedy, is_shared=is_shared)

    alone = bound(settings.port, is_shared=False)  # else a second gateway would take a part of the first's connections
    if settings.workers == 1:
        return [alone]
    port = alone.getsockname()[1]
    alone.close()
    return [bound(port, is_shared=True) for _ in range(settings.workers)]


def listen(host: str, port: int, *, who: str, remedy: str, is_shared: bool = False) -> socket.socket:
    """Bind an address, so that clients may connect from now on; raises `PortError` in the name of `who` listens.

    `is_shared`: others of this user may do so too (SO_REUSEPORT, socket(7)).
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=BACKLOG, reuse_port=is_shared)
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
