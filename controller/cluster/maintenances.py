"""Which maintenance is to come: one scontrol every half minute, and only while a job waits for one."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from controller.core.jobs import Job, Maintenance
from controller.ports import Clock, Scheduler, UnreadableError

log = logging.getLogger(__name__)

MAINTENANCE_AGAIN = 30.0
"""Seconds between two looks at the reservations."""


class Maintenances:
    """Reads the reservations for maintenance, and keeps what was read last."""

    def __init__(self, scheduler: Scheduler, clock: Clock) -> None:
        self._scheduler = scheduler
        self._clock = clock
        self._known: tuple[Maintenance, ...] = ()
        self._again_at = float("-inf")

    async def ahead(self, jobs: Iterable[Job]) -> tuple[Maintenance, ...]:
        """Return what there is while one of these jobs waits for a maintenance; where asking fails, what was known."""
        if not any(job.awaits_maintenance for job in jobs):
            return ()
        now = self._clock.now()
        if now >= self._again_at:
            self._again_at = now + MAINTENANCE_AGAIN
            try:
                self._known = await self._scheduler.maintenances()
            except UnreadableError as error:  # then what was known stands
                log.warning("the reservations can't be read", extra={"error": error.message})
        return self._known
