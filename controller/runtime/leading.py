"""One term: from taking the lease to losing it or being told to end. Nothing of a term outlives it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from api.contract.database import cause
from api.contract.log import about
from api.contract.settings import ControllerSettings
from controller.cluster.cluster import Cluster
from controller.core.jobs import Snapshot
from controller.ports import DeposedError
from controller.runtime.held_term import HeldTerm
from controller.runtime.reader import ClusterReader
from controller.runtime.timers import PeriodicTimers
from controller.runtime.waker import Waker
from controller.runtime.workers import Workers

log = logging.getLogger(__name__)

COUNTING_SECONDS = 60.0
"""Between two counts of the GPU-hours."""
LEARNING_SECONDS = 60.0
"""Between two looks at how long jobs waited and started."""
CLEARING_SECONDS = 3600.0
"""Between two rounds of clearing away what is old."""

CANCEL_AGAIN = 1.0

Sweep = Callable[[Snapshot | None], Awaitable[None]]
"""Clears away what is old, given the latest reading of the cluster."""


class Leading:
    """The parts of one term."""

    def __init__(
        self,
        held: HeldTerm,
        *,
        cluster: Cluster,
        reader: ClusterReader,
        workers: Workers,
        waker: Waker,
        sweeps: Sequence[Sweep],
        settings: ControllerSettings,
    ) -> None:
        self.held = held
        self.term = held.term
        self.cluster = cluster
        self.reader = reader
        self.workers = workers
        self.waker = waker
        self.queue = waker.queue
        self._sweeps = sweeps
        self._settings = settings

    async def lead(self, ending: asyncio.Event) -> None:
        """Work until the term is over, or `ending` is set; then let passes under way come to their end."""
        with about(epoch=self.term.epoch):  # what is begun inside says so in every line
            await self._lead(ending)

    async def _lead(self, ending: asyncio.Event) -> None:
        log.info("leading")
        settings = self._settings
        position = await self.waker.position()  # what came before is looked at with the first reading
        timers = PeriodicTimers()
        timers.every(settings.lease / 3, "renew the lease", self.held.renew)
        timers.every(settings.fastest_reading, "read the cluster", self.reader.read_when_due)
        timers.every(settings.resync, "look at everything", self.waker.wake_all)
        timers.every(COUNTING_SECONDS, "count the GPU-hours", self.count_hours)
        timers.every(LEARNING_SECONDS, "learn from the past", self.learn)
        timers.every(CLEARING_SECONDS, "clear away what is old", self.clear_away)
        timers.start()
        background = [
            asyncio.create_task(self.waker.follow_changes(position)),
            asyncio.create_task(self.reader.read_after_ends()),
        ]
        workers = [asyncio.create_task(self.workers.work_on()) for _ in range(settings.workers)]
        try:
            await _first_of(ending, self.held.lost)
        finally:
            timers.stop()
            self.queue.close()
            await _end(background, grace=0.0)
            await _end(workers, grace=3.0)
        log.info("no longer leading")

    async def clear_away(self) -> None:
        """Clear away what is old, if anything ever is."""
        try:
            for sweep in self._sweeps:
                await sweep(self.cluster.snapshots.latest)
        except DeposedError as error:
            self.held.lose(error)
        except (SQLAlchemyError, OSError) as error:
            log.warning("what is old could not be cleared away", extra={"error": cause(error)})

    async def count_hours(self) -> None:
        """Count the GPU-hours; look at everything if that stops a service, or no longer does."""
        try:
            if await self.cluster.admission.count_hours():
                await self.waker.wake_all()
        except (SQLAlchemyError, OSError) as error:
            log.warning("the GPU-hours could not be counted", extra={"error": cause(error)})

    async def learn(self) -> None:
        """Learn from the jobs of the last days; without them, from the next ones."""
        try:
            await self.cluster.histories.learn()
            await self.cluster.node_records.learn()
        except (SQLAlchemyError, OSError) as error:
            log.warning("how long jobs waited and started could not be read", extra={"error": cause(error)})


async def _first_of(*events: asyncio.Event) -> None:
    waiting = [asyncio.create_task(event.wait()) for event in events]
    await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    await _end(waiting, grace=0.0)


async def _end(tasks: Sequence[asyncio.Task[Any]], *, grace: float) -> None:
    """Let tasks finish what they are at for a while, then cancel them, again where what they call swallows that."""
    left: set[asyncio.Task[Any]] = set(tasks)
    if grace:
        _, left = await asyncio.wait(left, timeout=grace)
    while left:
        for task in left:
            task.cancel()
        _, left = await asyncio.wait(left, timeout=CANCEL_AGAIN)
    await asyncio.gather(*tasks, return_exceptions=True)
