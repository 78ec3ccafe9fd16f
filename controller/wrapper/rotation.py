"""Logs that have grown too long: copied to `NAME.1`, which holds what was before, and truncated.

Whoever writes can't be told to open another file, and a pipe through this process would end with it. Slurm opens both
logs for appending (`--open-mode=append`), so what is written next stands at the beginning again. What is lost is what
is written between the end of the copy and truncate(2), which come one right after the other.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import IO

from controller.wrapper.files import remove, say

BLOCK = 1024 * 1024


class Rotation:
    """The logs of a job, of which each may hold so many bytes; 0: as many as it likes."""

    def __init__(self, paths: list[Path], most: int) -> None:
        self._paths = paths if most > 0 and all(_appends(number) for number in (1, 2)) else []
        self._most = most

    def look(self) -> None:
        """Turn over those that are too long. One that can't be is let grow, and said so once."""
        for path in list(self._paths):
            try:
                if path.stat().st_size > self._most:
                    _turn_over(path)
            except FileNotFoundError:
                pass
            except OSError as error:
                say(f"cannot rotate {path}: {error}")
                self._paths.remove(path)


def before(path: Path) -> Path:
    """Return where what was in a log before lies."""
    return path.with_name(f"{path.name}.1")


def _appends(number: int) -> bool:
    """Whether what is written to a descriptor goes to the end of the file, wherever that is."""
    try:
        return bool(fcntl.fcntl(number, fcntl.F_GETFL) & os.O_APPEND)
    except OSError:
        return False


def _turn_over(path: Path) -> None:
    draft = path.with_name(f".{path.name}.1")
    try:
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with path.open("rb+", buffering=0) as log, os.fdopen(descriptor, "wb") as copy:
            _copy(log, copy)
            draft.replace(before(path))
            _copy(log, copy)  # what has come meanwhile
            log.truncate(0)
    except OSError:
        remove(draft)
        raise


def _copy(log: IO[bytes], copy: IO[bytes]) -> None:
    while block := log.read(BLOCK):
        copy.write(block)
    copy.flush()
