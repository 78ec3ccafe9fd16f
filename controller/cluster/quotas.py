"""What the site's ceilings on GPUs leave to each service, as one leader keeps it.

A pass that is about to open attempts has their GPUs promised before it waits for anything, so that no two passes take
the same ones. Services that wait for the GPUs of others stand in line, and are woken one after another.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime

from controller.cluster.tracked_attempts import TrackedAttempts
from controller.core.attempt import Attempt
from controller.core.observed import Quota
from controller.core.plan import Plan
from controller.core.quota import spent
from controller.ports import Clock

GpuHours = Callable[[float, float], Awaitable[Mapping[str, float]]]
"""From when to when (Unix seconds) -> the GPU-hours of each service that used any."""

NO_CEILINGS = Quota()


class Quotas:
    """The ceilings, what is used of them, and who waits."""

    def __init__(
        self,
        ceilings: Quota,
        tracked: TrackedAttempts,
        clock: Clock,
        gpu_hours: GpuHours,
        wake: Callable[[str], None],
    ) -> None:
        self._ceilings = ceilings
        self._tracked = tracked
        self._clock = clock
        self._gpu_hours = gpu_hours
        self._wake = wake
        self._hours: Mapping[str, float] = {}
        self._promised: dict[str, int] = {}
        self._waiting: dict[str, int] = {}
        """How many GPUs each needs, in the order in which they came."""
        self._held = 0

    def of(self, key: str) -> Quota | None:
        """Return the ceilings and what of them is used, for a pass over this service; `None`: there are none."""
        if self._ceilings == NO_CEILINGS:
            return None
        return replace(
            self._ceilings,
            held_by_others=self._taken() - self._tracked.gpus(key) - self._promised.get(key, 0),
            hours=sum(self._hours.values()),
            hours_of_service=self._hours.get(key, 0.0),
        )

    def promise(self, key: str, attempts: Iterable[Attempt]) -> None:
        """Keep what the service's attempts are about to hold beyond what is tracked already, until `settle`.

        Where the record comes to nothing, or its answer is lost, that is until the service's next pass.
        """
        held = sum(a.gpus for a in attempts if a.gone_at is None)
        self._promised[key] = max(held - self._tracked.gpus(key), 0)

    def settle(self, key: str, plan: Plan) -> None:
        """Take note that the plan is recorded, and what is tracked up to date; wake who can have what became free."""
        self._promised.pop(key, None)
        if plan.wants_gpus:
            self._waiting[key] = plan.wants_gpus
            has_left = False
        else:
            has_left = self._waiting.pop(key, None) is not None
        held, self._held = self._held, self._taken()
        if has_left or self._held < held:
            self._wake_next()

    async def count_hours(self) -> bool:
        """Count the GPU-hours of this month (UTC); return whether that stops a service, or no longer does."""
        if not (self._ceilings.gpu_hours or self._ceilings.gpu_hours_per_service):
            return False
        now = self._clock.now()
        before = self._stopped()
        self._hours = await self._gpu_hours(month_of(now), now)
        return before != self._stopped()

    def _stopped(self) -> set[str]:
        """Return the services whose GPU-hours are used up."""
        return {key for key in self._hours if spent(self.of(key)) is not None}

    def _taken(self) -> int:
        return self._tracked.gpus() + sum(self._promised.values())

    def _wake_next(self) -> None:
        free = self._ceilings.gpus - self._taken()
        key = next((key for key, needed in self._waiting.items() if needed <= free), None)
        if key is not None:
            self._wake(key)


def month_of(now: float) -> float:
    """Return when the calendar month (UTC) of a time began, both in Unix seconds."""
    began = datetime.fromtimestamp(now, UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    return began.timestamp()
