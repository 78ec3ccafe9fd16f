"""The end of a log that grows, for those who follow it.

What a follower is sent are whole lines, as long as more of the last one may come.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import NamedTuple

from api.http.logs.ends import MOST_OF_A_FILE, begin_of_end
from api.http.logs.log_file import CHUNK, LogFile
from api.http.logs.places import NOWHERE, WITNESS, Mark


class Piece(NamedTuple):
    """What a follower is sent next."""

    lost: int
    """Bytes before it that are not there any more: the file was rotated while the follower was far behind."""
    content: bytes
    end: int
    mark: Mark


class Tail:
    """One file: its end in memory, and places counted on over rotations."""

    def __init__(self, run_dir: Path, file: Path) -> None:
        self._log = LogFile(run_dir, file)
        self._reading = threading.Lock()
        """Held by the thread that uses the open file: a client that leaves does not end what a thread has begun."""
        self._told = 0
        """The place up to which `read` has said that something has come."""
        self.passes = 0
        """How often it has been read, or found not to be there."""
        self.followers = 0

    def close(self) -> None:
        """Let go of the file. Waits for who reads it: not for the event loop."""
        with self._reading:
            self._log.close()

    def read(self) -> bool:
        """Read what has come; say whether anything has. Reads files: not for the event loop."""
        with self._reading:
            self.passes += self._follow()
            told, self._told = self._told, self._log.seen.end
            return self._told != told

    def begin(self, mark: Mark | None, lines: int | None, *, whole: bool) -> tuple[int, Mark]:
        """Return the place to begin at, and its mark: after a mark, at the file's beginning, or with its last lines.

        Reads files: not for the event loop.
        """
        with self._reading:
            self._follow()
            place = self._place(mark, lines, whole=whole)
            return place, self._mark(place)

    def _place(self, mark: Mark | None, lines: int | None, *, whole: bool) -> int:
        seen, opened = self._log.seen, self._log.opened
        if opened is None:
            return seen.base
        if whole or mark == NOWHERE:
            return seen.before
        if mark is None:
            return self._last(opened, lines)
        if mark.is_of(opened):
            return seen.base + mark.offset
        with self._log.file_before() as before:
            if before is not None and mark.is_of(before):
                return seen.base - os.fstat(before).st_size + mark.offset
        return seen.base

    def _last(self, opened: int, lines: int | None) -> int:
        """Return the place of the last lines, of which some may stand in the file before."""
        seen, size = self._log.seen, os.fstat(opened).st_size
        offset = begin_of_end(opened, lines)
        if offset > 0 or lines == 0 or size >= MOST_OF_A_FILE:
            return seen.base + offset
        missing = None if lines is None else lines - len(os.pread(opened, size, 0).splitlines())
        with self._log.file_before() as before:
            if before is None or os.fstat(before).st_size != seen.base - seen.before:
                return seen.base
            return seen.before + begin_of_end(before, missing, MOST_OF_A_FILE - size)

    def _mark(self, place: int) -> Mark:
        seen = self._log.seen
        begin = max(place - WITNESS, seen.base if place > seen.base else seen.before)
        return seen.mark(place, self._log.read_back(seen, begin)[: place - begin])

    def is_near(self, place: int) -> bool:
        """Whether all after a place is in memory."""
        return place >= self._log.seen.start

    def has_more(self, place: int) -> bool:
        """Whether there is anything after a place."""
        return place < self._log.seen.end

    def take(self, place: int, *, is_final: bool) -> Piece | None:
        """Return the lines after a place; `None` if there is no whole one yet (an unfinished one, if it `is_final`).

        Reads files, and so is not for the event loop, unless the place `is_near`.
        """
        seen, begin = self._log.seen, place
        if place >= seen.start:
            content = seen.buffer[place - seen.start : place - seen.start + CHUNK]
        else:
            with self._reading:
                self._follow()
                seen = self._log.seen
                begin = max(place, seen.before)
                content = self._log.read_back(seen, begin)
            if not content:
                begin, content = max(place, seen.start), seen.buffer[max(0, place - seen.start) :][:CHUNK]
        cut = _cut(content, is_final=is_final)
        if not cut:
            return None
        end = begin + len(cut)
        known = seen.buffer[max(0, end - WITNESS - seen.start) : max(0, end - seen.start)]
        return Piece(begin - place, cut, end, seen.mark(end, max(known, cut, key=len)))

    def _follow(self) -> bool:
        return self._log.follow(is_first=self.passes == 0)


def _cut(content: bytes, *, is_final: bool) -> bytes:
    """Return the whole lines of what was read, or a part of one that is very long, at the end of a character."""
    if is_final and len(content) < CHUNK:
        return content
    lines = content[: content.rfind(b"\n") + 1]
    if lines or len(content) < CHUNK:
        return lines
    end = len(content)
    while end > len(content) - 4 and content[end - 1] & 0xC0 == 0x80:
        end -= 1
    return content[: end - 1]
