"""Jobs of this installation that no tracked attempt stands for.

A job whose attempt is durably closed and gone came late: it is cancelled. One that the database has never heard of
means that the database was rolled back or restored: it is left alone, and reported.
"""

from __future__ import annotations

import logging
from typing import Protocol

from api.contract.log import about
from controller.core.jobs import JobPhase, Snapshot
from controller.failpoints import reach
from controller.ports import Scheduler, Store, Term, UnreadableError

log = logging.getLogger(__name__)


class Known(Protocol):
    """The attempts that are tracked."""

    def __contains__(self, token: object) -> bool:
        """Whether a token is tracked."""
        ...


class Orphans:
    """Finds orphans in snapshots and deals with them."""

    def __init__(self, tracked: Known, store: Store, scheduler: Scheduler) -> None:
        self._tracked = tracked
        self._store = store
        self._scheduler = scheduler
        self._reported: set[str] = set()
        self.unknown: frozenset[str] = frozenset()
        """Tokens on the cluster that the database has never heard of."""

    async def sweep(self, term: Term, snapshot: Snapshot) -> None:
        """Cancel late jobs of closed attempts; report the unknown."""
        alive = [
            job
            for token, jobs in snapshot.jobs.items()
            if token not in self._tracked
            for job in jobs
            if job.phase not in (JobPhase.ENDED, JobPhase.COMPLETING)
        ]
        if not alive:
            self.unknown = frozenset()
            return
        closed = await self._store.known({job.token for job in alive})
        for job in alive:
            if closed.get(job.token):
                with about(epoch=term.epoch, token=job.token, job_id=job.job_id):
                    await self._cancel(job.token, job.job_id)
        self.unknown = frozenset(job.token for job in alive if job.token not in closed)
        for token in sorted(self.unknown - self._reported):
            log.error(
                "the cluster runs a job of which this database has never heard: was it restored? "
                "It is left alone; nothing is cancelled that may be wanted",
                extra={"token": token},
            )
        self._reported |= self.unknown

    async def _cancel(self, token: str, job_id: int) -> None:
        reach("before scancel a stray")
        try:
            await self._scheduler.cancel(token, job_id)
        except UnreadableError as error:
            log.warning("a late job could not be cancelled yet", extra={"error": error.message})
        else:
            reach("after scancel a stray")
            log.info("a late job was cancelled")
