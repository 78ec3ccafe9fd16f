"""Ports of the node: free ones for engines, found by binding them, and the one that a door keeps."""

from __future__ import annotations

import errno
import random
import socket
from collections.abc import Collection
from pathlib import Path

from api.contract.job.words import ExitReason
from controller.wrapper.report import FailedError

CONNECT_TIMEOUT = 0.5
"""Seconds; only ever spent on a host that does not answer at all."""

LOOPBACK = "127.0.0.1"

LOWEST = 10_000
"""Where we look first; below it well-known programs have their ports."""

EPHEMERAL = Path("/proc/sys/net/ipv4/ip_local_port_range")
"""The ports that the kernel gives to who connects (ip(7)): any of them may be taken at any moment."""

BACKLOG = 1024


def lasting() -> tuple[int, int] | None:
    """Return the ports below those that the kernel gives away; `None`: it leaves none."""
    try:
        low = int(EPHEMERAL.read_text(encoding="ascii").split()[0])
    except (OSError, ValueError, IndexError):
        return None
    return (LOWEST, low - 1) if low > LOWEST else None


def listen(port_range: tuple[int, int] | None) -> socket.socket:
    """Listen on a port of all addresses, of both families where there are two; raises `FailedError` (`NoFreePort`).

    Without SO_REUSEADDR nobody can bind it beside us, and who was there before is an obstacle even where he has one
    family or address alone.
    """
    chosen = port_range or lasting() or (0, 0)
    for port in random.sample(range(chosen[0], chosen[1] + 1), chosen[1] - chosen[0] + 1):
        for family, address in ((socket.AF_INET6, "::"), (socket.AF_INET, "")):
            try:
                return _listener(family, address, port)
            except OSError as error:
                if error.errno in (errno.EADDRINUSE, errno.EACCES):
                    break
    raise FailedError(ExitReason.NO_FREE_PORT, f"no free port in {chosen[0]}-{chosen[1]} on {socket.gethostname()}")


def _listener(family: int, address: str, port: int) -> socket.socket:
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        listener.bind((address, port))
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


def pick(host: str, port_range: tuple[int, int] | None, avoid: Collection[int]) -> int:
    """Return a port that nothing listens on; raises `FailedError` (`NoFreePort`)."""
    if port_range is None:
        candidates = [0] * (len(avoid) + 1)
    else:
        candidates = [port for port in range(port_range[0], port_range[1] + 1) if port not in avoid]
        random.shuffle(candidates)  # jobs that start together on one node should not all try the same one
    for lenient in (False, True):
        for candidate in candidates:
            port = _bind(host, candidate, lenient)
            if port is not None and port not in avoid:
                return port
    where = f"in {port_range[0]}-{port_range[1]}" if port_range else "at all"
    raise FailedError(ExitReason.NO_FREE_PORT, f"no free port {where} on {socket.gethostname()}")


def _bind(host: str, port: int, lenient: bool) -> int | None:
    """Listen for a moment, and return the port; `None`: it is taken.

    Strictly, old connections are an obstacle too, and so is an engine that has bound its port and does not listen yet,
    as vLLM while it loads. Leniently (SO_REUSEADDR) only a listener is.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, lenient)
        try:
            probe.bind((host, port))
            probe.listen(1)
        except OSError as error:
            if error.errno in (errno.EADDRINUSE, errno.EACCES):
                return None
            raise FailedError(ExitReason.NO_FREE_PORT, f"cannot listen on {host}: {error.strerror or error}") from error
        return int(probe.getsockname()[1])


def accepts(host: str, port: int) -> bool:
    """Tell whether something accepts connections there."""
    here = {"0.0.0.0": "127.0.0.1", "": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
    try:
        with socket.create_connection((here, port), timeout=CONNECT_TIMEOUT):
            return True
    except OSError:
        return False
