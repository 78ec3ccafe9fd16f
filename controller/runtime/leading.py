"""One term: from taking the lease to losing it or being told to end. Nothing of a term outlives it."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from api.contract.database import cause
from api.contract.identity import parse_token
from api.contract.log import about
from controller.cluster.orphans import Orphans
from controller.cluster.quotas import Quotas
from controller.cluster.rhythm import Rhythm
from controller.cluster.snapshots import SnapshotTaker
from controller.cluster.tracked_attempts import TrackedAttempts
from controller.images.retention import ImageRetention
from controller.lease import Lease
from controller.ports import Clock, DeposedError, Store, Term, UnreadableError, Witness
from controller.queue import KeyedQueue
from controller.reconciler import Reconciler
from controller.retention import Retention
from controller.runtime.timers import PeriodicTimers
from controller.runtime.wakes import changed_tokens

log = logging.getLogger(__name__)

COUNTING_SECONDS = 60.0
"""Between two counts of the GPU-hours."""
CLEARING_SECONDS = 3600.0
"""Between two rounds of clearing away what is old."""


class Unwitnessed:
    """Nobody counts."""

    @staticmethod
    def passing() -> contextlib.AbstractContextManager[None]:
        """Do nothing."""
        return contextlib.nullcontext()

    @staticmethod
    def has_read(*, well: bool) -> None:
        """Do nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Leading:
    """The parts of one term."""

    term: Term
    lease: Lease
    lease_seconds: float
    store: Store
    snapshots: SnapshotTaker
    tracked: TrackedAttempts
    reconciler: Reconciler
    orphans: Orphans
    queue: KeyedQueue
    rhythm: Rhythm
    clock: Clock
    wakeups: Callable[[], AsyncIterator[None]]
    resync_seconds: float
    workers: int
    deposed: asyncio.Event
    quotas: Quotas
    retention: Retention | None = None
    """`None`: everything is kept."""
    images: ImageRetention | None = None
    """`None`: all images are kept."""
    witness: Witness = field(default_factory=Unwitnessed)
    passes: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    """Numbers the passes of this term."""

    async def lead(self, ending: asyncio.Event) -> None:
        """Work until the term is over, or `ending` is set; then let passes under way come to their end."""
        with about(epoch=self.term.epoch):  # what is begun inside says so in every line
            await self._lead(ending)

    async def _lead(self, ending: asyncio.Event) -> None:
        log.info("leading")
        position, _ = await self.store.changed(0)  # what came before is looked at with the first reading
        timers = PeriodicTimers()
        timers.every(self.lease_seconds / 3, "renew the lease", self.renew)
        timers.every(self.rhythm.fastest, "read the cluster", self.read_when_due)
        timers.every(self.resync_seconds, "look at everything", self.resync)
        timers.every(COUNTING_SECONDS, "count the GPU-hours", self.count_hours)
        timers.every(CLEARING_SECONDS, "clear away what is old", self.clear_away)
        timers.start()
        background = [asyncio.create_task(self._follow_changes(position))]
        workers = [asyncio.create_task(self._work_on()) for _ in range(self.workers)]
        try:
            await _first_of(ending, self.deposed)
        finally:
            timers.stop()
            self.queue.close()
            await _end(background, grace=0.0)
            await _end(workers, grace=3.0)
        log.info("no longer leading")

    async def renew(self) -> None:
        """Renew the lease; notice if it is another's."""
        try:
            await self.lease.renew(self.term)
        except DeposedError as error:
            log.warning("deposed", extra={"error": error})
            self.deposed.set()
        except (SQLAlchemyError, OSError) as error:
            log.warning("the lease could not be renewed", extra={"error": cause(error)})

    async def read_when_due(self) -> None:
        """Read the cluster if the rhythm says so, and wake what changed."""
        if not self.rhythm.is_due(self.clock.now(), changing=self.tracked.is_changing):
            return
        before, was_silent = self.snapshots.latest, self.snapshots.failure is not None
        try:
            snapshot = await self.snapshots.take()
        except UnreadableError as error:
            self.witness.has_read(well=False)
            await self._tell_silence(error, was_silent=was_silent)
            return
        self.witness.has_read(well=True)
        if was_silent or before is None:
            log.info("the cluster answers")
            await self.resync()
        self._wake(changed_tokens(before, snapshot, await self.tracked.all()))
        await self.orphans.sweep(self.term, snapshot)

    async def _tell_silence(self, error: UnreadableError, *, was_silent: bool) -> None:
        if not was_silent:
            log.warning("the cluster can't be read", extra={"reason": error.reason, "error": error.message})
            await self.resync()

    def _wake(self, tokens: set[str]) -> None:
        if tokens:
            self.rhythm.hurry()
        self.queue.add_all({token.service for text in tokens if (token := parse_token(text)) is not None})

    async def clear_away(self) -> None:
        """Clear away what is old, if anything ever is."""
        try:
            if self.retention is not None:
                await self.retention.sweep(self.snapshots.latest)
            if self.images is not None:
                await self.images.sweep()
        except DeposedError as error:
            log.warning("deposed", extra={"error": error})
            self.deposed.set()
        except (SQLAlchemyError, OSError) as error:
            log.warning("what is old could not be cleared away", extra={"error": cause(error)})

    async def count_hours(self) -> None:
        """Count the GPU-hours; look at everything if that stops a service, or no longer does."""
        try:
            if await self.quotas.count_hours():
                await self.resync()
        except (SQLAlchemyError, OSError) as error:
            log.warning("the GPU-hours could not be counted", extra={"error": cause(error)})

    async def resync(self) -> None:
        """Look at every service."""
        self.queue.add_all(await self.store.keys())

    async def _follow_changes(self, position: int) -> None:
        """Wake the services that people change. Losing a wake-up costs a resync, no more."""
        while True:
            with contextlib.suppress(SQLAlchemyError, OSError):
                async for _ in self.wakeups():
                    position, keys = await self.store.changed(position)
                    self.queue.add_all(keys)
            await asyncio.sleep(1.0)

    async def work(self, key: str) -> None:
        """Make one pass over a key that was taken from the queue, and give it back."""
        epoch = self.term.epoch
        with about(service=key, epoch=epoch, pass_id=f"{epoch}.{next(self.passes)}"):
            await self._work(key)

    async def _work(self, key: str) -> None:
        try:
            with self.witness.passing():
                again_at = await self.reconciler.reconcile(key)
        except DeposedError as error:
            log.warning("deposed", extra={"error": error})
            self.deposed.set()
            self.queue.done(key)
        except (UnreadableError, SQLAlchemyError, OSError) as error:
            pause = self.queue.retry(key)
            log.warning("a pass came to nothing", extra={"again_in": round(pause, 1), "error": cause(error)})
        except Exception:
            pause = self.queue.retry(key)
            log.exception("a pass failed", extra={"again_in": round(pause, 1)})
        else:
            self.queue.done(key, again_at)

    async def _work_on(self) -> None:
        while (key := await self.queue.get()) is not None:
            await self.work(key)


async def _first_of(*events: asyncio.Event) -> None:
    waiting = [asyncio.create_task(event.wait()) for event in events]
    await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    await _end(waiting, grace=0.0)


async def _end(tasks: Sequence[asyncio.Task[Any]], *, grace: float) -> None:
    """Let tasks finish what they are at for a while, then cancel them."""
    if grace:
        await asyncio.wait(tasks, timeout=grace)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
