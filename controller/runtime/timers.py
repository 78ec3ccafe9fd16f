"""Periodic work, by APScheduler: the only place that knows it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.triggers.interval import IntervalTrigger

log = logging.getLogger(__name__)


def _is_news(record: logging.LogRecord) -> bool:
    """Whether a line of APScheduler's is worth writing: that work was cancelled is none, since `stop` cancels it."""
    return not (record.exc_info and isinstance(record.exc_info[1], asyncio.CancelledError))


logging.getLogger("apscheduler.executors.default").addFilter(_is_news)

LOOK_AFTER = 1.0
"""Seconds between two looks at whether the host's clock was put back."""


class PeriodicTimers:
    """Runs work every so many seconds. A late run is made up for once; none runs twice at a time."""

    def __init__(self) -> None:
        self._looking: asyncio.TimerHandle | None = None
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
        self._look_after()

    def _look_after(self) -> None:
        """APScheduler goes by the host's clock: when that is put back by an hour, it would do nothing for an hour."""
        now = datetime.now(UTC)
        for job in self._scheduler.get_jobs():
            if job.next_run_time - now > job.trigger.interval + timedelta(seconds=LOOK_AFTER):
                job.modify(next_run_time=now)
        self._looking = asyncio.get_running_loop().call_later(LOOK_AFTER, self._look_after)

    def stop(self) -> None:
        """End, and cancel the work that runs."""
        if self._looking is not None:
            self._looking.cancel()
        if self._scheduler.running:
            self._scheduler.shutdown(wait=False)
