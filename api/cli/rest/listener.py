"""Who listens where the API of the settings should. On a host with other users that is whoever came first."""

from __future__ import annotations

import socket
import time
from collections.abc import Mapping
from typing import Any

import httpx

from api.cli.errors import CliError
from api.contract.exits import Exit
from api.contract.job.private import is_trusted
from api.contract.peers import Peers

ACCEPT_SECONDS = 15.0
"""So long an API that is starting may take to accept its first connection, on a busy host."""
_LOOK_SECONDS = 0.002
_CONNECTED = ("connection.connect_tcp.complete", "connection.connect_unix_socket.complete")
"""Steps of httpcore, as its extension `trace` tells them."""


class OwnListener(httpx.HTTPTransport):
    """Asks only programs of this user or root, as far as they are on this host; others are told nothing at all."""

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Ask. Raises `CliError` where another user listens."""
        request.extensions = {**request.extensions, "trace": _look}
        return super().handle_request(request)


def _look(step: str, about: Mapping[str, Any]) -> None:
    if step in _CONNECTED:
        stream = about["return_value"]
        try:
            require_ours(stream.get_extra_info("socket"))
        except CliError:
            stream.close()
            raise


def require_ours(connection: socket.socket) -> None:
    """Raise `CliError` where another user of this host is at the other end. Of other hosts nothing can be known."""
    if connection.family != socket.AF_UNIX and connection.getsockname()[0] != connection.getpeername()[0]:
        return
    peers = Peers()
    try:
        user = _listener(peers, connection)
    except OSError:
        return  # it has gone again, or the kernel tells nothing
    finally:
        peers.close()
    if user is None:
        raise CliError(
            f"{_place(connection)} accepts no connection, though something listens there. If the API is just starting, "
            "try again. If not, see what it is: ss -ltnp",
            Exit.UNREACHABLE,
        )
    if not is_trusted(user):
        raise CliError(
            f"{_place(connection)} is taken by another user's server (uid {user}), which was told nothing. If "
            "that is the one you want, name it: --server, or AI_FACTORY_SERVER. If not, set api.port to another port, "
            "for yours: ai-factory config",
            Exit.UNREACHABLE,
        )


def _place(connection: socket.socket) -> str:
    address = connection.getpeername()
    return f"The socket {address}" if connection.family == socket.AF_UNIX else f"Port {address[1]}"


def _listener(peers: Peers, connection: socket.socket) -> int | None:
    """Return the user at the other end, who is known once the connection is accepted; `None`: nobody accepts it."""
    if connection.family != socket.AF_UNIX and not peers.work():
        raise OSError("no sock_diag")
    deadline = time.monotonic() + ACCEPT_SECONDS
    while (user := peers.of(connection).uid) is None and time.monotonic() < deadline:
        time.sleep(_LOOK_SECONDS)
    return user
