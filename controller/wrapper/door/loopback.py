"""Whose socket takes the connections to a loopback port: any user of the node may listen there."""

from __future__ import annotations

import os
from pathlib import Path

from api.contract.job.listening import listening, written
from controller.wrapper.process import descendants, parent


class LoopbackPort:
    """A port of 127.0.0.1, and those who may listen on it: one process and all below it."""

    def __init__(self, port: int, ancestor: int) -> None:
        self._port = port
        self._ancestor = ancestor
        self._known: dict[str, Path] = {}
        """Sockets of ours, and where they were found open."""

    def listeners(self) -> frozenset[str]:
        """Return the sockets that take its connections; none where one of them is another's."""
        found = _listeners(self._port)
        return found if all(self._is_ours(inode) for inode in found) else frozenset()

    def _is_ours(self, inode: str) -> bool:
        at = self._known.get(inode)
        if at is None or not (_is_open(at, inode) and self._is_below(at)):
            at = self._find(inode)
        if at is not None:
            self._known[inode] = at
        return at is not None

    def _find(self, inode: str) -> Path | None:
        places = (at for pid in descendants(self._ancestor) for at in _descriptors(pid))
        return next((at for at in places if _is_open(at, inode)), None)

    def _is_below(self, at: Path) -> bool:
        pid: int | None = int(at.parts[2])
        while pid is not None and pid != self._ancestor:
            pid = parent(pid)
        return pid is not None


def _listeners(port: int) -> frozenset[str]:
    """Return the listening sockets that a connection to the port of 127.0.0.1 may reach.

    An exact address goes before a wildcard, one of IPv4 before one of both families: whoever has another beside it
    gets nothing.
    """
    sockets = list(listening(port))
    for addresses in (("127.0.0.1", "::ffff:127.0.0.1"), ("0.0.0.0", "::ffff:0.0.0.0"), ("::",)):  # noqa: S104
        wanted = {written(address) for address in addresses}
        found = frozenset(one.inode for one in sockets if one.address in wanted)
        if found:
            return found
    return frozenset()


def _descriptors(pid: int) -> list[Path]:
    try:
        return [Path("/proc", str(pid), "fd", name) for name in os.listdir(f"/proc/{pid}/fd")]  # noqa: PTH208
    except OSError:
        return []


def _is_open(at: Path, inode: str) -> bool:
    try:
        return os.readlink(at) == f"socket:[{inode}]"  # noqa: PTH115
    except OSError:
        return False
