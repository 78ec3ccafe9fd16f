"""The attempts that are not gone, in memory: what the snapshot keeper tracks, and whether anything is changing.

Filled at the beginning of a term, then kept up to date by every pass; only the controller writes attempts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable

from controller.core.model import Attempt
from controller.ports import Tracked


class Roster:
    """All tracked attempts, by token."""

    def __init__(self, tracked: Iterable[Tracked] = ()) -> None:
        self._tracked = {t.token: t for t in tracked}
        self._gpus: Counter[str] = Counter()
        for each in self._tracked.values():
            self._gpus[each.service_id] += each.gpus
        self._changing = {t.token for t in self._tracked.values() if _is_changing(t)}

    async def tracked(self) -> Collection[Tracked]:
        """Return all of them."""
        return list(self._tracked.values())

    def update(self, attempts: Iterable[Attempt]) -> None:
        """Take in the attempts of one service as they were recorded."""
        for attempt in attempts:
            old = self._tracked.pop(attempt.token, None)
            self._gpus[attempt.service_id] -= old.gpus if old is not None else 0
            if attempt.gone_at is not None:
                self._changing.discard(attempt.token)
                continue
            tracked = track(attempt)
            self._tracked[attempt.token] = tracked
            self._gpus[attempt.service_id] += tracked.gpus
            (self._changing.add if _is_changing(tracked) else self._changing.discard)(attempt.token)

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


def track(attempt: Attempt) -> Tracked:
    """Return what is tracked of an attempt."""
    return Tracked(
        service_id=attempt.service_id,
        token=attempt.token,
        job_id=attempt.job_id,
        open=attempt.open,
        started=attempt.started_at is not None,
        settled=attempt.ready,
        gpus=attempt.gpus,
    )


def _state(tracked: Tracked) -> str:
    if not tracked.open:
        return "ending"
    if tracked.settled:
        return "ready"
    return "starting" if tracked.started else "queued"


def _is_changing(tracked: Tracked) -> bool:
    """A queued job may wait for days: that alone is no reason to look closely."""
    return not tracked.open or (tracked.started and not tracked.settled)
