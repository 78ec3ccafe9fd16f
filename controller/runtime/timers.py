"""Periodic work, by APScheduler: the only place that knows it."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.triggers.interval import IntervalTrigger

log = logging.getLogger(__name__)


class PeriodicTimers:
    """Runs work every so many seconds. A late run is made up for once; none runs twice at a time."""

    def __init__(self) -> None:
        self._scheduler = AsyncIOScheduler(
            timezone=UTC, job_defaults={"misfire_grace_time": None, "coalesce": True, "max_instances": 1}
        )

    def every(self, seconds: float, name: str, work: Callable[[], Awaitable[None]]) -> None:
        """Run `work` now and then every `seconds`. Whatever it raises is logged; the next run comes all the same."""

        async def run() -> None:
            try:
                await work()
            except Exception:
                log.exception("a periodic work failed", extra={"work": name})

        # A run that comes due while the last one still goes on is left out; APScheduler warns of each.
        logging.getLogger("apscheduler").setLevel(logging.ERROR)
        self._scheduler.add_job(run, IntervalTrigger(seconds=seconds), name=name, next_run_time=datetime.now(UTC))

    def start(self) -> None:
        """Begin."""
        self._scheduler.start()

    def stop(self) -> None:
        """End; work that runs is left to its own tasks."""
        if self._scheduler.running:
            self._scheduler.shutdown(wait=False)
