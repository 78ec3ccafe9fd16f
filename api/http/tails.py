"""The ends of log files that grow, read once for all who follow them.

Places in a file that was rotated or truncated go on being counted from where they were, so that who follows need not
know. What a follower is sent are whole lines, as long as more of the last one may come.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from api.http.logs import OutsideError, begin_of_end, open_log

BUFFER = 256 * 1024
"""Bytes of each file that are kept in memory; who is further behind reads the file."""
CHUNK = 64 * 1024
MOST_AT_ONCE = 4 * 1024 * 1024
"""Bytes of a file that are read in one tick."""
WITNESS = 64
"""So many bytes before a place tell whether a file is still the one that the place was in."""
TICK_SECONDS = 0.25


class Mark(NamedTuple):
    """A place in a file, with what tells the file from another: the checksum of the bytes before."""

    offset: int
    length: int
    checksum: int

    def __str__(self) -> str:
        return f"{self.offset}.{self.length}.{self.checksum:x}"


class Piece(NamedTuple):
    """What a follower is sent next."""

    lost: int
    """Bytes before it that are not there any more: the file was rotated while the follower was far behind."""
    content: bytes
    end: int
    mark: Mark


class Seen(NamedTuple):
    """What of a file is in memory. Replaced as a whole: one thread reads while others look."""

    base: int
    """The place at which the present file begins."""
    start: int
    """The place of the buffer's first byte."""
    buffer: bytes

    @property
    def end(self) -> int:
        """The place up to which the file has been read."""
        return self.start + len(self.buffer)


class Tail:
    """One file: its end in memory, and places counted on over rotations."""

    def __init__(self, run_dir: Path, file: Path) -> None:
        self._run_dir = run_dir
        self._file = file
        self._opened: int | None = None
        self._reading = threading.Lock()
        """Held by the thread that uses the open file: a client that leaves does not end what a thread has begun."""
        self._seen = Seen(0, 0, b"")
        self.passes = 0
        """How often it has been read."""
        self.followers = 0

    def close(self) -> None:
        """Let go of the file. Waits for who reads it: not for the event loop."""
        with self._reading:
            if self._opened is not None:
                os.close(self._opened)
                self._opened = None

    def read(self) -> bool:
        """Read what has come; say whether anything has. Reads files: not for the event loop."""
        with self._reading:
            before = self._seen.end
            with contextlib.suppress(OSError, OutsideError):
                self._follow_name(open_log(self._run_dir, self._file))
                self._read_on()
            self.passes += 1
            return self._seen.end != before

    def begin(self, mark: Mark | None, lines: int | None, *, whole: bool) -> int:
        """Return the place to begin at: after a mark, at the file's beginning, or with its last lines. Reads files."""
        base = self._seen.base
        try:
            opened = open_log(self._run_dir, self._file)
        except (OSError, OutsideError):
            return base
        try:
            if mark is not None:
                before = os.pread(opened, mark.length, mark.offset - mark.length)
                is_ours = len(before) == mark.length and zlib.crc32(before) == mark.checksum
                return base + (mark.offset if is_ours else 0)
            return base + (0 if whole else begin_of_end(opened, lines))
        finally:
            os.close(opened)

    def is_near(self, place: int) -> bool:
        """Whether all after a place is in memory."""
        return place >= self._seen.start

    def has_more(self, place: int) -> bool:
        """Whether there is anything after a place."""
        return place < self._seen.end

    def take(self, place: int, *, is_final: bool) -> Piece | None:
        """Return the lines after a place; `None` if there is no whole one yet (an unfinished one, if it `is_final`).

        Reads files, and so is not for the event loop, unless the place `is_near`.
        """
        seen, lost = self._seen, 0
        if place >= seen.start:
            content = seen.buffer[place - seen.start : place - seen.start + CHUNK]
        else:
            try:
                with self._reading:
                    seen = self._seen
                    content = self._read_back(seen, place)
            except (OSError, OutsideError):
                return None
            if not content:
                lost, place = seen.start - place, seen.start
                content = seen.buffer[:CHUNK]
        cut = _cut(content, is_final=is_final)
        if not cut:
            return None
        end = place + len(cut)
        # Only what stands in the present file is a witness of it.
        offset = max(0, end - seen.base)
        length = min(WITNESS, len(cut), offset)
        return Piece(lost, cut, end, Mark(offset, length, zlib.crc32(cut[len(cut) - length :])))

    def _read_back(self, seen: Seen, place: int) -> bytes:
        """Read before the buffer; nothing if the file that the place was in has gone."""
        if place < seen.base or self._opened is None:
            return b""
        opened = open_log(self._run_dir, self._file)
        try:
            if not os.path.sameopenfile(self._opened, opened):
                return b""
            return os.pread(opened, min(CHUNK, seen.end - place), place - seen.base)
        finally:
            os.close(opened)

    def _follow_name(self, opened: int) -> None:
        """Go over to the file that has the name now, once the one before has been read to its end."""
        if self._opened is None:
            self._opened = opened
            if self.passes == 0:
                size = os.fstat(opened).st_size
                start = max(0, size - WITNESS)
                self._seen = Seen(0, start, os.pread(opened, size - start, start))
        elif os.path.sameopenfile(self._opened, opened):
            os.close(opened)
        else:
            self._read_on()
            os.close(self._opened)
            self._opened = opened
            self._seen = self._seen._replace(base=self._seen.end)

    def _read_on(self) -> None:
        assert self._opened is not None
        base, _, buffer = seen = self._seen
        end = seen.end
        length = min(WITNESS, end - base, len(buffer))
        known = buffer[len(buffer) - length :]
        if os.pread(self._opened, length, end - base - length) != known:  # truncated, and perhaps grown again
            base = end
        came = os.pread(self._opened, MOST_AT_ONCE, end - base)
        kept = (buffer + came)[-BUFFER:]
        self._seen = Seen(base, end + len(came) - len(kept), kept)


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


class Tails:
    """All files that are followed in this process, read by one task, from the first follower on until none is left."""

    def __init__(self, run_dir: Path) -> None:
        self._run_dir = run_dir
        self._tails: dict[Path, Tail] = {}
        self._reading: asyncio.Task[None] | None = None
        self._one_at_a_time = asyncio.Lock()
        self.bell = asyncio.Event()
        """Rung, and replaced, when anything has come."""
        self.is_closed = False

    async def follow(self, file: Path) -> Tail:
        """Return the file's tail, read up to now; it must be let go of."""
        tail = self._tails.setdefault(file, Tail(self._run_dir, file))
        tail.followers += 1
        try:
            async with self._one_at_a_time:
                await asyncio.to_thread(_read, [tail])
        except BaseException:
            tail.followers -= 1
            raise
        if self._reading is None or self._reading.done():
            self._reading = asyncio.create_task(self._read_on())
        return tail

    @staticmethod
    def let_go(tail: Tail) -> None:
        """Follow a file no longer."""
        tail.followers -= 1

    async def close(self) -> None:
        """Wake all followers for the last time."""
        self.is_closed = True
        self._ring()
        if self._reading is not None:
            self._reading.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._reading
        for tail in self._tails.values():
            await asyncio.to_thread(tail.close)

    async def _read_on(self) -> None:
        while self._tails:
            await asyncio.sleep(TICK_SECONDS)
            async with self._one_at_a_time:
                for file, tail in list(self._tails.items()):
                    if tail.followers == 0:
                        del self._tails[file]
                        await asyncio.to_thread(tail.close)
                has_come = await asyncio.to_thread(_read, list(self._tails.values()))
            if has_come:
                self._ring()

    def _ring(self) -> None:
        self.bell.set()
        self.bell = asyncio.Event()


def _read(tails: Sequence[Tail]) -> bool:
    """Read them all; say whether anything has come."""
    return sum(tail.read() for tail in tails) > 0
