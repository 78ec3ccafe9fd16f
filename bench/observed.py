"""A real controller run in this process, with its passes and its readings watched."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from unittest.mock import patch

from sqlalchemy import Engine, event

from controller.app import Controller
from controller.reconciler import Reconciler
from controller.runtime.leading import Leading
from controller.runtime.reader import ClusterReader

PATIENCE = 600.0
CALM = 1.5
"""Seconds without a pass after which things are calm."""


@dataclass(frozen=True, slots=True)
class Moment:
    """Both clocks at once: of the wall, and this process's own processor time."""

    wall: float
    cpu: float

    @staticmethod
    def now() -> Moment:
        """Read both."""
        return Moment(time.perf_counter(), time.process_time())

    def __sub__(self, other: Moment) -> Moment:
        return Moment(self.wall - other.wall, self.cpu - other.cpu)


@dataclass(slots=True)
class Observed:
    """What was seen of a controller that runs."""

    controller: Controller
    began: Moment
    passes: int = 0
    latest: Moment = field(default_factory=Moment.now)
    """The end of the latest pass."""
    seen: set[str] = field(default_factory=set)
    """The services that had a pass with a snapshot."""
    readings: list[Moment] = field(default_factory=list)
    statements: int = 0
    """Of SQL, each BEGIN too."""
    leading: Leading | None = None

    @property
    def calls(self) -> Counter[str]:
        """How often each of Slurm's commands was run."""
        counted: Counter[str] = Counter()
        for (command, _), number in self.controller._installation.runner.calls.items():
            counted[command] += number
        return counted

    async def calm(self, services: int, also: Callable[[], bool] = lambda: True) -> Moment:
        """Wait until every service was looked at with a snapshot, and nothing more is done; return when that was."""
        async with asyncio.timeout(PATIENCE):
            while len(self.seen) < services or not also():
                await asyncio.sleep(0.05)
            since = time.perf_counter()
            while time.perf_counter() - max(since, self.latest.wall) < CALM:
                await asyncio.sleep(0.05)
        return self.latest

    async def next_reading(self) -> tuple[Moment, Counter[str]]:
        """Wait for the end of the next reading; return when that was and the commands until then."""
        count = len(self.readings)
        while len(self.readings) == count:
            await asyncio.sleep(0.01)
        return self.readings[-1], self.calls

    async def ticks(self, number: int) -> list[Moment]:
        """Make so many readings, one after another; return what each took. What the first one wakes is awaited."""
        taken = []
        await self._tick()
        await self.calm(0)
        for _ in range(number):
            taken.append(await self._tick())
            await asyncio.sleep(0.05)
        return taken

    async def _tick(self) -> Moment:
        assert self.leading is not None
        self.leading.cluster.rhythm.hurry()
        before = Moment.now()
        await self.leading.reader.read_when_due()
        return Moment.now() - before

    async def passes_of_all(self, services: int) -> Moment:
        """Have every service looked at; return what that took."""
        assert self.leading is not None
        count, before = self.passes, Moment.now()
        await self.leading.waker.wake_all()
        while self.passes < count + services:
            await asyncio.sleep(0.02)
        return Moment.now() - before


@asynccontextmanager
async def observed(controller: Controller) -> AsyncIterator[Observed]:
    """Run a controller, then end it and close its database."""
    ending = asyncio.Event()
    found = Observed(controller, Moment.now())
    reconcile, read, lead = Reconciler.reconcile, ClusterReader.read_when_due, Leading.lead

    async def watched_reconcile(self: Reconciler, key: str) -> float | None:
        known = found.leading is not None and found.leading.cluster.snapshots.latest is not None
        again = await reconcile(self, key)
        found.passes += 1
        found.latest = Moment.now()
        if known:
            found.seen.add(key)
        return again

    async def watched_read(self: ClusterReader) -> None:
        assert found.leading is not None
        snapshots = found.leading.cluster.snapshots
        before = snapshots.latest
        await read(self)
        if snapshots.latest is not before:
            found.readings.append(Moment.now())

    async def watched_lead(self: Leading, ending: asyncio.Event) -> None:
        found.leading = self
        await lead(self, ending)

    def count_statement(*_: object) -> None:
        found.statements += 1

    event.listen(Engine, "before_cursor_execute", count_statement)
    with (
        patch.object(Reconciler, "reconcile", watched_reconcile),
        patch.object(ClusterReader, "read_when_due", watched_read),
        patch.object(Leading, "lead", watched_lead),
    ):
        running = asyncio.create_task(controller.run(ending))
        try:
            yield found
        finally:
            ending.set()
            await running
            await controller._installation.database.close()
            event.remove(Engine, "before_cursor_execute", count_statement)
