"""A log that is never longer than it may be, whatever is written: the file, the file before it, and its first part.

What is full becomes `NAME.1`, in place of the one before; the very first stays as `NAME.0` too, a second name of the
same file. So a log takes three times its length at most, and how the engine began and how it ended are both there.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from api.contract.job.folder import first_part, rotated


class BoundedLog:
    """One log, which nobody else is to write to. Raises `OSError` where it can't be opened."""

    def __init__(self, path: Path, most: int) -> None:
        self._path = path
        self._most = most
        self._file, self._size = _opened(path)
        self._lost = 0

    def write(self, text: bytes) -> None:
        """Write whole lines where there is room for them. What can't be written is lost, and later said to be."""
        try:
            if self._lost:
                self._write(b"\nwrapper: %d bytes of this log could not be written\n" % self._lost)
                self._lost = 0
            self._write(text)
        except OSError:
            self._lost += len(text)

    def _write(self, text: bytes) -> None:
        while text:
            room = self._most - self._size
            end = len(text) if len(text) <= room else text.rfind(b"\n", 0, max(0, room)) + 1
            if end == 0 and self._size == 0:
                end = room
            if end == 0:
                self._turn_over()
                continue
            written = os.write(self._file, text[:end])
            self._size += written
            text = text[written:]

    def _turn_over(self) -> None:
        """Begin a new file; where that fails, this one anew: its last part matters most."""
        try:
            with contextlib.suppress(FileExistsError):
                os.link(self._path, first_part(self._path))
            self._path.replace(rotated(self._path))
            file, self._size = _opened(self._path)
            os.close(self._file)
            self._file = file
        except OSError:
            os.ftruncate(self._file, 0)
            self._size = 0


def _opened(path: Path) -> tuple[int, int]:
    """Open a log to be written on, and return its size."""
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    return file, os.fstat(file).st_size
