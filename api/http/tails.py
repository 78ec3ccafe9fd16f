"""The ends of log files that grow, read once for all who follow them.

Places in a file that was rotated or truncated go on being counted from where they were, so that who follows need not
know. What was in the file before, and was not read yet, is read from where it was moved or copied to: `NAME.1`. What a
follower is sent are whole lines, as long as more of the last one may come.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from api.contract.job.folder import rotated
from api.http.logs import MOST_OF_A_FILE, OutsideError, begin_of_end, open_log

BUFFER = 256 * 1024
"""Bytes of each file that are kept in memory; who is further behind reads the file."""
CHUNK = 64 * 1024
MOST_AT_ONCE = 4 * 1024 * 1024
"""Bytes of a file that are read in one tick."""
WITNESS = 1024
"""So many bytes before a place tell whether a file is still the one that the place was in. Engines repeat themselves:
one line, without the time of day, may well stand at the same place in two files.
"""
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


class Tail:
    """One file: its end in memory, and places counted on over rotations."""

    def __init__(self, run_dir: Path, file: Path) -> None:
        self._run_dir = run_dir
        self._file = file
        self._opened: int | None = None
        self._reading = threading.Lock()
        """Held by the thread that uses the open file: a client that leaves does not end what a thread has begun."""
        self._seen = Seen(0, 0, 0, b"")
        self._told = 0
        """The place up to which `read` has said that something has come."""
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
            self._follow()
            self.passes += 1
            told, self._told = self._told, self._seen.end
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
        seen, opened = self._seen, self._opened
        if opened is None:
            return seen.base
        if whole or mark == NOWHERE:
            return seen.before
        if mark is None:
            return self._last(opened, lines)
        if _is_of(opened, mark):
            return seen.base + mark.offset
        with self._file_before() as before:
            if before is not None and _is_of(before, mark):
                return seen.base - os.fstat(before).st_size + mark.offset
        return seen.base

    def _last(self, opened: int, lines: int | None) -> int:
        """Return the place of the last lines, of which some may stand in the file before."""
        seen, size = self._seen, os.fstat(opened).st_size
        offset = begin_of_end(opened, lines)
        if offset > 0 or lines == 0 or size >= MOST_OF_A_FILE:
            return seen.base + offset
        missing = None if lines is None else lines - len(os.pread(opened, size, 0).splitlines())
        with self._file_before() as before:
            if before is None or os.fstat(before).st_size != seen.base - seen.before:
                return seen.base
            return seen.before + begin_of_end(before, missing, MOST_OF_A_FILE - size)

    def _mark(self, place: int) -> Mark:
        seen = self._seen
        begin = max(place - WITNESS, seen.base if place > seen.base else seen.before)
        return seen.mark(place, self._read_back(seen, begin)[: place - begin])

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
        seen, begin = self._seen, place
        if place >= seen.start:
            content = seen.buffer[place - seen.start : place - seen.start + CHUNK]
        else:
            with self._reading:
                self._follow()
                seen = self._seen
                begin = max(place, seen.before)
                content = self._read_back(seen, begin)
            if not content:
                begin, content = max(place, seen.start), seen.buffer[max(0, place - seen.start) :][:CHUNK]
        cut = _cut(content, is_final=is_final)
        if not cut:
            return None
        end = begin + len(cut)
        known = seen.buffer[max(0, end - WITNESS - seen.start) : max(0, end - seen.start)]
        return Piece(begin - place, cut, end, seen.mark(end, max(known, cut, key=len)))

    def _read_back(self, seen: Seen, place: int) -> bytes:
        """Read before the buffer; nothing if the file that the place was in has gone, or can't be read."""
        content = b""
        try:
            if place < seen.base:
                with self._file_before() as before:
                    if before is None or os.fstat(before).st_size != seen.base - seen.before:
                        return b""
                    content = os.pread(before, min(CHUNK, seen.base - place), place - seen.before)
                place += len(content)
                if place < seen.base:
                    return content
            if self._opened is not None:
                most = min(CHUNK - len(content), seen.end - place)
                content += os.pread(self._opened, most, place - seen.base)
        except OSError:
            return b""
        return content

    def _follow(self) -> None:
        """Read what has come."""
        with contextlib.suppress(OSError, OutsideError):
            self._follow_name(open_log(self._run_dir, self._file))
            self._read_on()

    def _follow_name(self, opened: int) -> None:
        """Go over to the file that has the name now, once the one before has been read to its end."""
        if self._opened is None:
            self._opened = opened
            if self.passes == 0:
                size = os.fstat(opened).st_size
                start = max(0, size - WITNESS)
                with self._file_before() as before:
                    earlier = 0 if before is None else os.fstat(before).st_size
                self._seen = Seen(-earlier, 0, start, os.pread(opened, size - start, start))
        elif os.path.sameopenfile(self._opened, opened):
            os.close(opened)
        else:
            with contextlib.suppress(OSError):  # on NFS, it may have been removed
                while self._read_on():
                    pass
            os.close(self._opened)
            self._opened = opened
            self._seen = self._seen.turned(self._seen.base)

    def _read_on(self) -> bool:
        """Read on in the open file; say whether anything has come."""
        assert self._opened is not None
        seen = self._seen
        length = min(WITNESS, seen.end - seen.base, len(seen.buffer))
        known = seen.buffer[len(seen.buffer) - length :]
        if os.pread(self._opened, length, seen.end - seen.base - length) != known:  # truncated, perhaps grown again
            seen = self._read_copy(seen, known)
        came = os.pread(self._opened, MOST_AT_ONCE, seen.end - seen.base)
        self._seen = seen.grown(came)
        return bool(came)

    def _read_copy(self, seen: Seen, known: bytes) -> Seen:
        """Read the rest of what was in the file when it was truncated, if it was copied beforehand."""
        with self._file_before() as before:
            offset = seen.end - seen.base
            if before is None or os.pread(before, len(known), offset - len(known)) != known:
                return seen.turned(seen.end)
            begin = seen.base
            while came := os.pread(before, MOST_AT_ONCE, seen.end - begin):
                seen = seen.grown(came)
            return seen.turned(begin)

    @contextlib.contextmanager
    def _file_before(self) -> Iterator[int | None]:
        """Open the file before the present one, if it is there."""
        try:
            opened = open_log(self._run_dir, rotated(self._file))
        except (OSError, OutsideError):
            yield None
            return
        try:
            yield opened
        finally:
            os.close(opened)


def _is_of(opened: int, mark: Mark) -> bool:
    """Whether a mark was made in this file."""
    before = os.pread(opened, mark.length, mark.offset - mark.length)
    return len(before) == mark.length and zlib.crc32(before) == mark.checksum


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
        await asyncio.to_thread(_close, list(self._tails.values()))

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


def _close(tails: Sequence[Tail]) -> None:
    for tail in tails:
        tail.close()
