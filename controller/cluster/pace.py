"""The pace of submissions: a burst goes at once, then so many a second, so that a great start does not storm slurmctld.

Services that have to wait get a turn each, in the order in which they asked, and are not looked at in vain before.
"""

from __future__ import annotations

from controller.ports import Clock


class Pace:
    """A token bucket whose tokens can be reserved ahead."""

    def __init__(self, clock: Clock, burst: int, per_second: float) -> None:
        self._clock = clock
        self._burst = burst
        self._per_second = per_second
        self._spent_until = float("-inf")
        """When the bucket will be full again."""
        self._turns: dict[str, float] = {}

    def allowance(self, key: str) -> int:
        """Return how many jobs this service may submit now."""
        now = self._clock.now()
        turn = self._turns.get(key)
        if turn is not None:
            return 1 if turn <= now else 0
        missing = max(self._spent_until - now, 0.0) * self._per_second
        return max(int(self._burst - missing), 0)

    def reserve(self, key: str) -> float:
        """Return when this service may submit its next job (Unix seconds); it keeps that turn until it is used."""
        if key not in self._turns:
            self._spend(1)
            self._turns[key] = max(self._clock.now(), self._spent_until - self._burst / self._per_second)
        return self._turns[key]

    def release(self, key: str) -> None:
        """Drop the turn of a service that has nothing to submit any more."""
        self._turns.pop(key, None)

    def submitted(self, key: str) -> None:
        """Count one job that this service submits now."""
        if self._turns.pop(key, None) is None:
            self._spend(1)

    def _spend(self, count: int) -> None:
        self._spent_until = max(self._spent_until, self._clock.now()) + count / self._per_second
