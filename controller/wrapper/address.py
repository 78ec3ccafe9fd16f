"""Where an engine listens: on a port of the node, on one of loopback behind the door, or on a socket behind it."""

from __future__ import annotations

import contextlib
import socket
from dataclasses import dataclass
from pathlib import Path

from api.contract.job.parameters import Parameters, hold
from controller.wrapper import ports
from controller.wrapper.door.loopback import LoopbackPort


@dataclass(frozen=True)
class EngineAddress:
    """Where one engine listens; nowhere if neither port nor socket is set."""

    host: str = ports.LOOPBACK
    port: int | None = None
    socket: Path | None = None
    """On the node; alone in a folder of mode 0700."""
    own: LoopbackPort | None = None
    """Set where others could listen on the port as well: tells whether it is one of ours who does."""

    @property
    def exists(self) -> bool:
        """Whether anything is to listen."""
        return self.port is not None or self.socket is not None

    def accepts(self) -> bool:
        """Tell whether the engine accepts connections."""
        if self.socket is not None:
            return _accepts(self.socket)
        if self.own is not None and not self.own.listeners():
            return False
        return self.port is not None and ports.accepts(self.host, self.port)


def asks_for(parameters: Parameters, value: str) -> bool:
    """Tell whether the engine, or what is run beside it, is given a runtime value."""
    check = parameters.check.command if parameters.check is not None else ()
    return hold((*parameters.command, *parameters.environment.values(), *check), value)


def _accepts(path: Path) -> bool:
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(ports.CONNECT_TIMEOUT)
        probe.connect(str(path))
        return True
    return False
