"""A log file that grows, and may be rotated or truncated while it is read.

Places in it go on being counted from where they were, so that who follows need not know. What was in the file before,
and was not read yet, is read from where it was moved or copied to: `NAME.1`.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from api.contract.job.folder import rotated
from api.contract.job.own_trouble import is_own_trouble
from api.http.logs.ends import OutsideError, open_log
from api.http.logs.places import WITNESS, Seen

CHUNK = 64 * 1024
MOST_AT_ONCE = 4 * 1024 * 1024
"""Bytes of a file that are read in one tick."""


class LogFile:
    """What has a log's name, read to its end over rotations and truncations. One thread at a time uses it."""

    def __init__(self, run_dir: Path, file: Path) -> None:
        self._run_dir = run_dir
        self._file = file
        self.opened: int | None = None
        self.seen = Seen(0, 0, 0, b"")

    def close(self) -> None:
        """Let go of the file."""
        if self.opened is not None:
            os.close(self.opened)
            self.opened = None

    def follow(self, *, is_first: bool) -> bool:
        """Read what has come. Of a file that is there the first time only the end is: all else lies behind it.

        Say whether that could be tried: not so where this host is short of descriptors.
        """
        try:
            opened = open_log(self._run_dir, self._file)
            try:
                self._follow_name(opened, is_first=is_first)
            finally:
                if opened != self.opened:
                    os.close(opened)
            self._read_on()
        except (OSError, OutsideError) as error:
            return not is_own_trouble(error)
        return True

    def read_back(self, seen: Seen, place: int) -> bytes:
        """Read before the buffer; nothing if the file that the place was in has gone, or can't be read.

        Raises `OSError` where this host can't look.
        """
        content = b""
        try:
            if place < seen.base:
                with self.file_before() as before:
                    if before is None or os.fstat(before).st_size != seen.base - seen.before:
                        return b""
                    content = os.pread(before, min(CHUNK, seen.base - place), place - seen.before)
                place += len(content)
                if place < seen.base:
                    return content
            if self.opened is not None:
                most = min(CHUNK - len(content), seen.end - place)
                content += os.pread(self.opened, most, place - seen.base)
        except OSError as error:
            if is_own_trouble(error):
                raise
            return b""
        return content

    @contextlib.contextmanager
    def file_before(self) -> Iterator[int | None]:
        """Open the file before the present one, if it is there; raises `OSError` where this host can't look."""
        try:
            opened = open_log(self._run_dir, rotated(self._file))
        except (OSError, OutsideError) as error:
            if is_own_trouble(error):
                raise
            yield None
            return
        try:
            yield opened
        finally:
            os.close(opened)

    def _follow_name(self, opened: int, *, is_first: bool) -> None:
        """Go over to the file that has the name now, once the one before has been read to its end."""
        if self.opened is None:
            if is_first:
                size = os.fstat(opened).st_size
                start = max(0, size - WITNESS)
                with self.file_before() as before:
                    earlier = 0 if before is None else os.fstat(before).st_size
                self.seen = Seen(-earlier, 0, start, os.pread(opened, size - start, start))
            self.opened = opened
        elif not os.path.sameopenfile(self.opened, opened):
            try:
                while self._read_on():
                    pass
            except OSError as error:  # on NFS, it may have been removed
                if is_own_trouble(error):
                    raise
            os.close(self.opened)
            self.opened = opened
            self.seen = self.seen.turned(self.seen.base)

    def _read_on(self) -> bool:
        """Read on in the open file; say whether anything has come."""
        assert self.opened is not None
        seen = self.seen
        length = min(WITNESS, seen.end - seen.base, len(seen.buffer))
        known = seen.buffer[len(seen.buffer) - length :]
        if os.pread(self.opened, length, seen.end - seen.base - length) != known:  # truncated, perhaps grown again
            seen = self._read_copy(seen, known)
        came = os.pread(self.opened, MOST_AT_ONCE, seen.end - seen.base)
        self.seen = seen.grown(came)
        return bool(came)

    def _read_copy(self, seen: Seen, known: bytes) -> Seen:
        """Read the rest of what was in the file when it was truncated, if it was copied beforehand."""
        with self.file_before() as before:
            offset = seen.end - seen.base
            if before is None or os.pread(before, len(known), offset - len(known)) != known:
                return seen.turned(seen.end)
            begin = seen.base
            while came := os.pread(before, MOST_AT_ONCE, seen.end - begin):
                seen = seen.grown(came)
            return seen.turned(begin)
