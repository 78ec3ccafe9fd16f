"""The attempts that are not gone, in memory: what snapshots are compared with, and whether anything is changing.

Filled at the beginning of a term, then kept up to date by every pass; only the controller writes attempts.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable

from controller.core.attempt import Attempt
from controller.ports import Tracked


class TrackedAttempts:
    """All tracked attempts, by token."""

    def __init__(self, tracked: Iterable[Tracked] = ()) -> None:
        self._tracked: dict[str, Tracked] = {}
        self._tokens: defaultdict[str, set[str]] = defaultdict(set)
        """By service."""
        self._gpus: Counter[str] = Counter()
        self._changing: set[str] = set()
        for each in tracked:
            self._take(each)

    def all(self) -> Collection[Tracked]:
        """Return all of them."""
        return list(self._tracked.values())

    def update(self, attempts: Iterable[Attempt]) -> None:
        """Take in all attempts of one service that the database still tracks, as they were recorded.

        What is tracked here of that service and not among them has gone unnoticed: the answer of a commit was lost.
        """
        recorded = {attempt.token: attempt for attempt in attempts}
        for service_id in {attempt.service_id for attempt in recorded.values()}:
            for token in self._tokens[service_id] - recorded.keys():
                self._drop(token)
        for attempt in recorded.values():
            self._drop(attempt.token)
            if attempt.gone_at is None:
                self._take(Tracked.of(attempt))

    def _take(self, tracked: Tracked) -> None:
        self._tracked[tracked.token] = tracked
        self._tokens[tracked.service_id].add(tracked.token)
        self._gpus[tracked.service_id] += tracked.gpus
        if _is_changing(tracked):
            self._changing.add(tracked.token)

    def _drop(self, token: str) -> None:
        old = self._tracked.pop(token, None)
        if old is not None:
            self._tokens[old.service_id].discard(token)
            self._gpus[old.service_id] -= old.gpus
            self._changing.discard(token)

    @property
    def is_changing(self) -> bool:
        """Whether anything is starting or being ended, so that the cluster is worth a closer look."""
        return bool(self._changing)

    def gpus(self, service_id: str | None = None) -> int:
        """Return how many GPUs the attempts of one service hold, or those of all."""
        return self._gpus.total() if service_id is None else self._gpus[service_id]

    def states(self) -> Counter[str]:
        """Count the attempts by state: queued, starting, ready, ending."""
        return Counter(map(_state, self._tracked.values()))

    def __contains__(self, token: object) -> bool:
        return token in self._tracked


def _state(tracked: Tracked) -> str:
    if not tracked.open:
        return "ending"
    if tracked.settled:
        return "ready"
    return "starting" if tracked.started else "queued"


def _is_changing(tracked: Tracked) -> bool:
    """A queued job may wait for days: that alone is no reason to look closely."""
    return not tracked.open or (tracked.started and not tracked.settled)
