"""Places in a log that grows, is rotated and truncated: as they go into a client's hands, and as they are in memory."""

from __future__ import annotations

import os
import zlib
from typing import NamedTuple

BUFFER = 256 * 1024
"""Bytes of each file that are kept in memory; who is further behind reads the file."""
WITNESS = 1024
"""So many bytes before a place tell whether a file is still the one that the place was in. Engines repeat themselves:
one line, without the time of day, may well stand at the same place in two files.
"""


class Mark(NamedTuple):
    """A place in a file, with what tells the file from another: the checksum of the bytes before."""

    offset: int
    length: int
    checksum: int

    def __str__(self) -> str:
        return f"{self.offset}.{self.length}.{self.checksum:x}"

    def is_of(self, opened: int) -> bool:
        """Whether it was made in this file."""
        before = os.pread(opened, self.length, self.offset - self.length)
        return len(before) == self.length and zlib.crc32(before) == self.checksum


NOWHERE = Mark(0, 0, 0)
"""Before all there ever was."""


class Seen(NamedTuple):
    """What of a file is in memory. Replaced as a whole: one thread reads while others look."""

    before: int
    """The place at which the file before the present one begins, which `NAME.1` may still hold."""
    base: int
    """The place at which the present file begins."""
    start: int
    """The place of the buffer's first byte."""
    buffer: bytes

    @property
    def end(self) -> int:
        """The place up to which the file has been read."""
        return self.start + len(self.buffer)

    def grown(self, came: bytes) -> Seen:
        """Return it with what has come."""
        kept = (self.buffer + came)[-BUFFER:]
        return self._replace(start=self.end + len(came) - len(kept), buffer=kept)

    def turned(self, before: int) -> Seen:
        """Return it with another file beginning at its end."""
        return self._replace(before=before, base=self.end)

    def mark(self, end: int, content: bytes) -> Mark:
        """Return the mark of a place, by the content that stands before it in the file that the place is in."""
        offset = end - self.base if end > self.base else max(0, end - self.before)
        length = min(WITNESS, len(content), offset)
        return Mark(offset, length, zlib.crc32(content[len(content) - length :])) if length else NOWHERE
