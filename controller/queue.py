"""The keyed queue: each key is with one worker at a time; additions merge, the earliest time wins."""

from __future__ import annotations

import asyncio
import heapq
import random
from collections.abc import Callable, Iterable

FIRST_RETRY = 0.5
MOST_RETRY = 60.0
"""Seconds. Failures of a pass (database busy, cluster silent) back off between these, doubling, with full jitter."""


class KeyedQueue:
    """Keys with the time at which each is due. Times are the clock's."""

    def __init__(self, now: Callable[[], float], jitter: Callable[[], float] = random.random) -> None:
        self._now = now
        self._jitter = jitter
        self._due: dict[str, float] = {}
        self._heap: list[tuple[float, str]] = []
        self._working: set[str] = set()
        self._failures: dict[str, int] = {}
        self._changed = asyncio.Event()
        self._closed = False

    def add(self, key: str, at: float | None = None) -> None:
        """Have a key worked on at a time, now if none is given. While it is worked on, it waits for its turn."""
        due = self._now() if at is None else at
        if due >= self._due.get(key, float("inf")):
            return
        self._due[key] = due
        heapq.heappush(self._heap, (due, key))
        self._changed.set()

    def add_all(self, keys: Iterable[str]) -> None:
        """Have all these worked on now."""
        for key in keys:
            self.add(key)

    def close(self) -> None:
        """Give out no more keys."""
        self._closed = True
        self._changed.set()

    async def get(self) -> str | None:
        """Wait for a key that is due and with no worker, and take it; `done` or `retry` must follow.

        Returns `None` once the queue is closed.
        """
        while not self._closed:
            key = self.take()
            if key is not None:
                return key
            self._changed.clear()
            pause = self._heap[0][0] - self._now() if self._heap else None
            try:
                # Not wait_for: before Python 3.12 it loses a cancellation that comes as the event does.
                async with asyncio.timeout(None if pause is None else max(pause, 0.0)):
                    await self._changed.wait()
            except TimeoutError:
                continue
        return None

    def done(self, key: str, again_at: float | None = None) -> None:
        """Give a key back after a pass that succeeded."""
        self._failures.pop(key, None)
        self._give_back(key)
        if again_at is not None:
            self.add(key, again_at)

    def retry(self, key: str) -> float:
        """Give a key back after a pass that failed; return in how many seconds it is tried again."""
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        pause = min(FIRST_RETRY * 2.0 ** min(failures, 20), MOST_RETRY) * (0.5 + self._jitter() / 2)
        self._give_back(key)
        self.add(key, self._now() + pause)
        return pause

    def overdue(self) -> tuple[int, float]:
        """Return how many keys are due and wait for a worker, and how many seconds the first of them has waited."""
        now = self._now()
        ages = [now - due for due in self._due.values() if due <= now]
        return len(ages), max(ages, default=0.0)

    def __len__(self) -> int:
        return len(self._due)

    def take(self) -> str | None:
        """Take the first key that is due and free, if there is one; `done` or `retry` must follow."""
        now = self._now()
        while self._heap and self._heap[0][0] <= now:
            due, key = heapq.heappop(self._heap)
            # A busy key waits beside the heap until it is given back.
            if self._due.get(key) != due or key in self._working:
                continue
            del self._due[key]
            self._working.add(key)
            return key
        return None

    def _give_back(self, key: str) -> None:
        self._working.discard(key)
        if key in self._due:
            heapq.heappush(self._heap, (self._due[key], key))
            self._changed.set()
