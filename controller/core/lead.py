"""How long before the end of a job its successor is opened: learnt from how long such jobs waited and started.

Pure. All spans are in seconds, all times Unix seconds.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

HIGH = 0.95
"""The share of all spans that the high one is not exceeded by."""
ENOUGH = 10
"""So many spans make their high one worth believing; of fewer the longest counts twice."""
ROOM_SECONDS = 120.0
"""Within this time after the end of what held its room a job begins that had only waited for that."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """When a job was wanted, began and answered; and when what it was opened beside came to its end."""

    intent_at: float
    started_at: float
    ready_at: float | None = None
    forerunner_closed_at: float | None = None
    """`None`: it stands still, or there was none."""
    forerunner_gone_at: float | None = None

    @property
    def wait(self) -> float | None:
        """How long it was queued; `None` if it had to wait for its forerunner's room, which says nothing of queues."""
        closed_at = self.forerunner_closed_at
        if closed_at is not None and closed_at <= self.started_at:
            free_at = self.forerunner_gone_at
            if free_at is None or self.started_at <= free_at + ROOM_SECONDS:
                return None
        return max(self.started_at - self.intent_at, 0.0)

    @property
    def startup(self) -> float | None:
        """How long it took from its start to its first answer; `None` if it has not answered."""
        return max(self.ready_at - self.started_at, 0.0) if self.ready_at is not None else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What was measured of one kind of span."""

    count: int = 0
    high: float = 0.0
    """The span that `HIGH` of all did not exceed (nearest rank)."""

    def expected(self, *, own: float | None = None, guess: float = 0.0) -> float:
        """Return how long it may well take the next time.

        While little was measured, one's `own` span counts too, and the `guess` of who knows better.
        """
        if self.count >= ENOUGH:
            return self.high
        return max(2 * max(self.high, own or 0.0), guess)


def measured(spans: Iterable[float | None]) -> Measured:
    """Return what there is to know of spans; those that are `None` say nothing."""
    told = sorted(span for span in spans if span is not None)
    if not told:
        return Measured()
    return Measured(count=len(told), high=told[math.ceil(HIGH * len(told)) - 1])


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """What was measured of jobs that one service's next ones are like."""

    waits: Measured = Measured()
    """In the queue: of all services with the same placement."""
    startups: Measured = Measured()
    """From a job's start to the first answer: of those among them with the same recipe and model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lead:
    """What has to go before the end of a job."""

    wait: float
    startup: float
    drain: float
    """How long what is in flight may take to come to its end."""

    @property
    def total(self) -> float:
        """From the successor's intent to the end of the old job."""
        return self.wait + self.startup + self.drain

    def before(self, ends_at: float, *, lasts: float, others: int = 0) -> float:
        """Return when the successor of a job that ends then, after so long, is to be opened.

        `others` end soon after it: so that each has its own time, it goes ahead by a start-up for each of them. Never
        before half of its time is over: two jobs would hold the room of one for longer than one alone.
        """
        return ends_at - min(self.total + others * self.startup, lasts / 2)

    def serious(self, ends_at: float, *, lasts: float) -> float:
        """Return from when on a successor that is still queued is late."""
        return ends_at - min(self.startup + self.drain, lasts / 4)
