"""The clock of one term."""

from __future__ import annotations

import time
from collections.abc import Callable


class SystemClock:
    """The time of this host, which may be set forwards and backwards at any moment."""

    @staticmethod
    def now() -> float:
        """Return Unix seconds."""
        return time.time()


class TermClock:
    """Counts on from the time at which a term began, and follows the host's clock gently: its time never jumps.

    Waiting times (graces, patience, back-off, the queue) would else be over at once, or last for hours.
    """

    FASTER = 0.05
    """By how much of a second, at most, a second of it is longer or shorter, to come nearer to the host's clock."""

    def __init__(
        self,
        began_at: float,
        wall: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._wall = wall
        self._monotonic = monotonic
        self._now = began_at
        self._at = monotonic()

    def now(self) -> float:
        """Return Unix seconds, as this term counts them."""
        at = self._monotonic()
        elapsed, self._at = at - self._at, at
        most = elapsed * self.FASTER
        apart = self._wall() - (self._now + elapsed)
        self._now += elapsed + max(-most, min(apart, most))
        return self._now
