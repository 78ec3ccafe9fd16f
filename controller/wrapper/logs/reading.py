"""What the engine has written into the job's log since a moment."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

from api.contract.job.folder import LOGS, rotated

READ_LIMIT = 256 * 1024
"""Bytes; of what came in between two looks, or stands before the end, only the newest so many are read."""

_COLOUR = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


class Logs:
    """Both logs of the job, from the moment of creation on, or from their beginning.

    `before_reading` is called where what was written last matters.
    """

    def __init__(self, folder: Path, *, whole: bool = False, before_reading: Callable[[], None] = lambda: None) -> None:
        self._paths = [folder / name for name in LOGS]
        self._before_reading = before_reading
        self._starts = [0 if whole else _size(path) for path in self._paths]
        self._offsets = list(self._starts)
        self._partial = ["" for _ in self._paths]

    def new_lines(self) -> list[str]:
        """Return the lines completed since the last call."""
        lines: list[str] = []
        for index, path in enumerate(self._paths):
            text, self._offsets[index] = _read(path, self._offsets[index])
            *complete, self._partial[index] = re.split(r"[\r\n]+", self._partial[index][-READ_LIMIT:] + text)
            lines += complete
        return lines

    def lines(self) -> list[str]:
        """Return the last lines of each, stdout's first."""
        self._before_reading()
        lines: list[str] = []
        for path, start in zip(self._paths, self._starts):
            text, end = _read(path, start)
            if end < start or (start == 0 and end < READ_LIMIT):
                text = (_read(rotated(path), 0)[0] + text)[-READ_LIMIT:]
            lines += re.split(r"[\r\n]+", text)
        return [line for line in lines if line.strip()]

    def size(self) -> int:
        """Return the bytes in both."""
        return sum(_size(path) for path in self._paths)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _read(path: Path, offset: int) -> tuple[str, int]:
    """Return what stands from the offset, or in a shorter file from its beginning, to the end, and where the end is.

    Unreadable is empty.
    """
    try:
        with path.open("rb") as file:
            end = file.seek(0, os.SEEK_END)
            file.seek(max(offset if offset <= end else 0, end - READ_LIMIT))
            return _COLOUR.sub("", file.read(READ_LIMIT).decode("utf-8", errors="replace")), end
    except OSError:
        return "", offset
