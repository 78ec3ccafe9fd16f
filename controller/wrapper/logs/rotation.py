"""Logs that have grown too long: copied to `NAME.1`, which holds what was before, and truncated.

Whoever writes can't be told to open another file, and a pipe through this process would end with it. Slurm opens both
logs for appending (`--open-mode=append`), so what is written next stands at the beginning again. What is lost is what
is written between the end of the copy and truncate(2), which come one right after the other.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from pathlib import Path
from typing import IO

from api.contract.job.folder import rotated
from controller.wrapper.files import remove, say

BLOCK = 1024 * 1024
MOST_SECONDS = 1.0
"""So long a look may take; a copy that takes longer goes on at the next one. There is more to be looked after."""


class Rotation:
    """The logs of a job, of which each may hold so many bytes; 0: as many as it likes."""

    def __init__(self, paths: list[Path], most: int) -> None:
        self._paths = paths if most > 0 and all(_appends(number) for number in (1, 2)) else []
        self._most = most
        self._copies: dict[Path, tuple[IO[bytes], IO[bytes]]] = {}

    def look(self) -> None:
        """Turn over those that are too long. One that can't be is let grow, and said so once."""
        deadline = time.monotonic() + MOST_SECONDS
        for path in list(self._paths):
            try:
                if path in self._copies or path.stat().st_size > self._most:
                    self._turn_over(path, deadline)
            except FileNotFoundError:
                self._let_go(path)
            except OSError as error:
                say(f"cannot rotate {path}: {error}")
                self._paths.remove(path)
                self._let_go(path)

    def _turn_over(self, path: Path, deadline: float) -> None:
        if path not in self._copies:
            descriptor = os.open(_draft(path), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            copy: IO[bytes] = os.fdopen(descriptor, "wb", buffering=0)
            try:
                self._copies[path] = (path.open("rb+", buffering=0), copy)
            except OSError:
                copy.close()
                raise
        log, copy = self._copies[path]
        while block := log.read(BLOCK):
            copy.write(block)
            if time.monotonic() > deadline:
                return
        _draft(path).replace(rotated(path))
        while block := log.read(BLOCK):  # what has come meanwhile
            copy.write(block)
        log.truncate(0)
        self._let_go(path)

    def _let_go(self, path: Path) -> None:
        for file in self._copies.pop(path, ()):
            with contextlib.suppress(OSError):
                file.close()
        remove(_draft(path))


def _draft(path: Path) -> Path:
    return path.with_name(f".{rotated(path).name}")


def _appends(number: int) -> bool:
    """Whether what is written to a descriptor goes to the end of the file, wherever that is."""
    try:
        return bool(fcntl.fcntl(number, fcntl.F_GETFL) & os.O_APPEND)
    except OSError:
        return False
