"""What hand-overs cost: how long two jobs were held for one replica, and how long a replica had none that answered."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from controller.core.attempt import Attempt
from controller.core.outcomes import Outcome
from controller.report import Pass

_ENDED_FOR_GOOD = (Outcome.STOPPED, Outcome.SCALED_DOWN, Outcome.QUOTA_EXCEEDED, Outcome.OUTDATED)
"""How what nobody is to take over from is ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HandOver:
    """One that ended in this pass."""

    reason: str
    """Why the successor was opened beside the other one."""
    overlap: float
    """Seconds from the start of the successor's job to the closing of the other attempt; 0: it started later.

    How long nobody answered in that case `Gaps` tells.
    """


def hand_overs(done: Pass) -> Iterator[HandOver]:
    """Return the hand-overs that a pass has brought to their end: the old one is closed, and its successor was ready.

    Whether we ended the old one, or it ended by itself before that.
    """
    before = set(_taken_over(done.record.attempts))
    for token, one in _taken_over(_after(done)).items():
        if token not in before:
            yield one


def _taken_over(attempts: Sequence[Attempt]) -> dict[str, HandOver]:
    """Return what came of those that were handed over, by the token of the successor."""
    found: dict[str, HandOver] = {}
    for successor in (a for a in attempts if a.beside is not None and a.ready_at is not None):
        older = [a for a in attempts if a.replica == successor.replica and a.incarnation < successor.incarnation]
        old = max((a for a in older if a.lane != successor.lane), key=lambda a: a.incarnation, default=None)
        if old is None or old.closed_at is None or old.outcome in _ENDED_FOR_GOOD or successor.beside is None:
            continue
        if successor.closed_at is not None and successor.closed_at < old.closed_at:
            continue  # it went before
        began = successor.started_at if successor.started_at is not None else successor.intent_at
        found[successor.token] = HandOver(reason=successor.beside, overlap=max(old.closed_at - began, 0.0))
    return found


class Gaps:
    """Remembers since when a replica that was ready has none that answers. Only what this process saw begin counts."""

    def __init__(self) -> None:
        self._since: dict[tuple[str, int], float] = {}

    def after(self, done: Pass) -> list[float]:
        """Return how long the gaps took, in seconds, that a pass has closed. What people end has none."""
        key, desired = done.record.desired.service_id, done.record.desired
        wanted = (done.plan.status or done.record.status).target if desired.running else 0
        before, after = _ready(done.record.attempts), _ready(_after(done))
        for replica in before - after:
            self._since.setdefault((key, replica), done.now)
        ended: list[float] = []
        for service, replica in [known for known in self._since if known[0] == key]:
            if replica >= wanted:
                del self._since[service, replica]
            elif replica in after:
                ended.append(max(done.now - self._since.pop((service, replica)), 0.0))
        return ended

    def forget(self) -> None:
        """Begin anew: what others did meanwhile is not known."""
        self._since.clear()


def _after(done: Pass) -> tuple[Attempt, ...]:
    """Return the attempts as they are once the plan is recorded."""
    return tuple({a.token: a for a in (*done.record.attempts, *done.plan.attempts)}.values())


def _ready(attempts: Iterable[Attempt]) -> set[int]:
    return {a.replica for a in attempts if a.ready}
