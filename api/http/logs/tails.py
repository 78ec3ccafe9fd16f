"""The logs that are followed in this process, each read once for all who follow it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from pathlib import Path

from api.http.logs.tail import Tail
from api.web.bell import Bell

TICK_SECONDS = 0.25


class Tails:
    """All files that are followed in this process, read by one task, from the first follower on until none is left."""

    def __init__(self, run_dir: Path) -> None:
        self._run_dir = run_dir
        self._tails: dict[Path, Tail] = {}
        self._reading: asyncio.Task[None] | None = None
        self._one_at_a_time = asyncio.Lock()
        self.bell = Bell()
        """Rung when anything has come."""
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
        self.bell.ring()
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
                self.bell.ring()


def _read(tails: Sequence[Tail]) -> bool:
    """Read them all; say whether anything has come."""
    return sum(tail.read() for tail in tails) > 0


def _close(tails: Sequence[Tail]) -> None:
    for tail in tails:
        tail.close()
