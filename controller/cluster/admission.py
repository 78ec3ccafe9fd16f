"""Admission: what one service may take now, of the pace of submissions and of the site's GPUs.

A pass asks, decides on what it is granted, holds what its attempts will take before it records them, and settles once
they are recorded and tracked. Nothing is awaited between asking and holding, so that no two passes take the same GPUs.
"""

from __future__ import annotations

from collections.abc import Iterable

from controller.cluster.pace import Pace
from controller.cluster.quotas import Quotas
from controller.core.attempt import Attempt
from controller.core.observed import Grant
from controller.core.plan import Plan, Submit


class Admission:
    """The pace and the quotas of one cluster, as a pass meets them."""

    def __init__(self, pace: Pace, quotas: Quotas) -> None:
        self._pace = pace
        self._quotas = quotas

    def ask(self, key: str) -> Grant:
        """Return what this service may take now."""
        return Grant(jobs=self._pace.allowance(key), quota=self._quotas.of(key))

    def hold(self, key: str, attempts: Iterable[Attempt]) -> None:
        """Keep what the service's attempts are about to take, until `settle`, or its next pass."""
        self._quotas.promise(key, attempts)

    def settle(self, key: str, plan: Plan) -> float | None:
        """Count what a plan takes that is recorded; return when the service's turn comes, if it has to wait for one."""
        self._quotas.settle(key, plan)
        for action in plan.actions:
            if isinstance(action, Submit):
                self._pace.submitted(key)
        if plan.wants_turn:
            return self._pace.reserve(key)
        self._pace.release(key)
        return None

    def forget(self, key: str) -> None:
        """Take note that there is no such service any more."""
        self.settle(key, Plan())

    async def count_hours(self) -> bool:
        """Count the GPU-hours of this month; return whether that stops a service, or no longer does."""
        return await self._quotas.count_hours()
