"""What has been asked under each key that has limits, for all processes of this host: a file that they all map.

`accounts.2` has a row for each key: its account, and how many of the requests being answered are answered by each
process. Who reads or writes holds the file's lock (flock(2)), for some microseconds. A process has a number for as long
as it holds the lock of `process-NUMBER`; the kernel lets go of it whatever ends the process, and what a dead one was
answering then counts no more. The clock is the host's, CLOCK_MONOTONIC, read under the lock: it never goes back
while the host is up. After a restart of the host the rows are of a clock that has begun anew, and their buckets are
full.

A process may be killed between two writes. So the row's own number of requests is never less than that of all
processes: it is raised before theirs and lowered after, and made theirs again before anybody is refused for it.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import struct
import time
from collections.abc import Callable
from functools import lru_cache
from hashlib import sha256
from pathlib import Path

from api.contract.job.private import make_folder
from api.gateway.limits import Account, Refusal, admitted, aged, settled
from api.web.key_limits import KeyLimits

ACCOUNTS = "accounts.2"
MOST_PROCESSES = 640
"""Twice the most workers of a gateway, for while they are replaced, and the API's."""
PATIENCE, IMPATIENT_SECONDS = 0.25, 10.0
"""For how long the lock is waited for, and nothing else gets done; and how long after that it is not."""
_PAUSE = 20e-6
_KEY = struct.Struct("32s")
_ACCOUNT = struct.Struct("5q")
"""An `Account`."""
_COUNTS = struct.Struct(f"{MOST_PROCESSES}H")
_COUNT = struct.Struct("H")
_MOST_AT_ONCE = 2**32 - 1
_ROWS = struct.Struct("q")
"""How many rows there are, at the file's beginning."""
_ACCOUNT_AT = _KEY.size
_COUNTS_AT = _ACCOUNT_AT + _ACCOUNT.size
_ROW = _COUNTS_AT + _COUNTS.size
_STEP = 64 * _ROW
"""By which the file grows; the disk's blocks are taken then, so that no later write fails for want of them."""


def microseconds() -> int:
    """Return the host's clock."""
    return time.monotonic_ns() // 1000


class Ledger:
    """The file, opened when it is first needed. Raises `OSError` where that can't be."""

    def __init__(self, folder: Path, clock: Callable[[], int] = microseconds) -> None:
        self._folder = folder
        self._clock = clock
        self._file = -1
        self._process = -1
        self._own_lock = -1
        self._map: mmap.mmap | None = None
        self._places: dict[bytes, int] = {}
        """Of rows, by the key's digest."""
        self._known = 0
        """Rows whose places are known."""
        self._patient_from = 0.0
        """Until then, of `time.monotonic`, a process stands still with the lock."""
        self._ended: list[tuple[str, KeyLimits, int, int]] = []
        """Requests that have ended, of which the file does not know yet: key, limits, and what more they took."""

    def admit(self, key: str, limits: KeyLimits, tokens: int) -> Account | Refusal:
        """Let a request pass that may take so many tokens; return what is then asked under its key."""
        table = self._begin()
        try:
            place, now = self._place(table, key), self._clock()
            found = admitted(_account(table, place), limits, tokens, now)
            if isinstance(found, Refusal) and found.wait is None:
                self._count_anew(table, place)
                found = admitted(_account(table, place), limits, tokens, now)
            if isinstance(found, Refusal):
                return found
            _write(table, place, found)
            self._add(table, place, 1)
            return found
        finally:
            self._end()

    def settle(self, key: str, limits: KeyLimits, *, requests: int = 0, tokens: int = 0) -> None:
        """Note that a request has ended, which took so much more than was thought. `write` tells other processes."""
        self._ended.append((key, limits, requests, tokens))

    def write(self) -> None:
        """Write what has ended.

        Where that raises, it is written with what comes next: else it would count as being answered for ever.
        """
        self._begin()
        self._end()

    def look(self, key: str, limits: KeyLimits) -> Account:
        """Return what is asked under a key now."""
        table = self._begin()
        try:
            return aged(_account(table, self._place(table, key)), limits, self._clock())
        finally:
            self._end()

    def close(self) -> None:
        """Let go of the file; what this process was answering counts no more."""
        if self._ended:
            with contextlib.suppress(OSError):  # then only the estimates stand
                self.write()
        if self._map is not None:
            self._map.close()
            self._map = None
        for descriptor in (self._file, self._own_lock):
            if descriptor >= 0:
                os.close(descriptor)
        self._file = self._own_lock = -1
        self._places, self._known = {}, 0

    def _begin(self) -> mmap.mmap:
        """Take the lock, until `_end`, and write first what has ended."""
        if self._file < 0:
            self._open()
        self._lock()
        try:
            table = self._table()
            if self._ended:
                self._settle_ended(table)
        except BaseException:
            self._end()
            raise
        return table

    def _end(self) -> None:
        fcntl.flock(self._file, fcntl.LOCK_UN)

    def _settle_ended(self, table: mmap.mmap) -> None:
        while self._ended:
            key, limits, requests, tokens = self._ended.pop()
            place = self._place(table, key)
            account = settled(_account(table, place), limits, requests, tokens, self._clock())
            self._add(table, place, -1)
            _write(table, place, account)

    def _lock(self) -> None:
        """Take the lock, which is held for microseconds; raises `TimeoutError` where a process stands still with it."""
        ends: float | None = None
        while True:
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                now = time.monotonic()
                if ends is None:
                    ends = now + PATIENCE if now >= self._patient_from else now
                if now >= ends:
                    self._patient_from = now + IMPATIENT_SECONDS
                    raise TimeoutError(f"another process holds {self._folder / ACCOUNTS} for too long") from None
                time.sleep(_PAUSE)
            else:
                self._patient_from = 0.0
                return

    def _open(self) -> None:
        make_folder(self._folder)
        self._process, self._own_lock = self._number()
        self._file = self._opened(ACCOUNTS)
        table = self._begin()
        try:
            for place in range(_ROW, _after(_rows(table)), _ROW):
                at = self._count_at(place, self._process)
                if _COUNT.unpack_from(table, at)[0]:
                    _COUNT.pack_into(table, at, 0)
                    _sum_up(table, place)
        finally:
            self._end()

    def _opened(self, name: str) -> int:
        return os.open(self._folder / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)

    def _number(self) -> tuple[int, int]:
        """Take a number that no living process has; return it, and what holds it."""
        for number in range(MOST_PROCESSES):
            if (held := self._held(number)) is not None:
                return number, held
        raise OSError(f"more than {MOST_PROCESSES} processes count in {self._folder}")

    def _held(self, number: int) -> int | None:
        """Take the lock of a number; `None` while a process lives that has it."""
        descriptor = self._opened(f"process-{number}")
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        return descriptor

    def _table(self) -> mmap.mmap:
        """Map the file, as far as it reaches now, which is further only where there are more rows."""
        if self._map is not None and _ROWS.unpack_from(self._map, 0)[0] == self._known:
            return self._map
        if (size := os.fstat(self._file).st_size) == 0:
            os.posix_fallocate(self._file, 0, _STEP)
        if self._map is None or len(self._map) != size:
            if self._map is not None:
                self._map.close()
            self._map = mmap.mmap(self._file, 0)
        rows = _rows(self._map)
        for place in range(_after(self._known), _after(rows), _ROW):
            self._places[self._map[place : place + _KEY.size]] = place
        self._known = rows
        return self._map

    def _place(self, table: mmap.mmap, key: str) -> int:
        """Return where a key's row begins, which is made where there is none."""
        digest = _digest(key)
        place = self._places.get(digest)
        if place is None:
            place = _after(_rows(table))
            if place + _ROW > len(table):
                os.posix_fallocate(self._file, len(table), _STEP)
                table.resize(len(table) + _STEP)
            _KEY.pack_into(table, place, digest)
            self._known = _rows(table) + 1
            _ROWS.pack_into(table, 0, self._known)
            self._places[digest] = place
        return place

    def _add(self, table: mmap.mmap, place: int, more: int) -> None:
        """Count so many more requests as being answered by this process."""
        at = self._count_at(place, self._process)
        _COUNT.pack_into(table, at, min(max(0, _COUNT.unpack_from(table, at)[0] + more), 2**16 - 1))

    def _count_anew(self, table: mmap.mmap, place: int) -> None:
        """Forget what dead processes were answering."""
        for number, count in enumerate(_COUNTS.unpack_from(table, place + _COUNTS_AT)):
            if count and number != self._process and (held := self._held(number)) is not None:
                _COUNT.pack_into(table, self._count_at(place, number), 0)
                os.close(held)
        _sum_up(table, place)

    @staticmethod
    def _count_at(place: int, process: int) -> int:
        return place + _COUNTS_AT + process * _COUNT.size


@lru_cache(maxsize=4096)
def _digest(key: str) -> bytes:
    return sha256(key.encode()).digest()


def _rows(table: mmap.mmap) -> int:
    found: int = _ROWS.unpack_from(table, 0)[0]
    return min(max(0, found), len(table) // _ROW - 1)


def _after(rows: int) -> int:
    """Return where rows end; the first's place has the file's head."""
    return (rows + 1) * _ROW


def _account(table: mmap.mmap, place: int) -> Account:
    requests, requests_as_of, tokens, tokens_as_of, at_once = _ACCOUNT.unpack_from(table, place + _ACCOUNT_AT)
    return Account(requests, requests_as_of, tokens, tokens_as_of, at_once & _MOST_AT_ONCE)


def _write(table: mmap.mmap, place: int, account: Account) -> None:
    _ACCOUNT.pack_into(table, place + _ACCOUNT_AT, *account)


def _sum_up(table: mmap.mmap, place: int) -> None:
    """Make the number of requests being answered that of all processes."""
    at_once = sum(_COUNTS.unpack_from(table, place + _COUNTS_AT))
    _write(table, place, _account(table, place)._replace(at_once=at_once))
