"""One service in one pass: what is wanted, what is seen, and its attempts, counted as they are closed and opened."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from api.contract.gpus import gpus_asked
from api.contract.job.words import Lane
from controller.core import evidence
from controller.core.attempt import Attempt
from controller.core.desired import Desired
from controller.core.limits import Limits
from controller.core.observed import Observed


@dataclass(frozen=True, slots=True, kw_only=True)
class Replica:
    """The attempts at one replica that still matter, in the order of their incarnations; both lanes."""

    number: int
    attempts: tuple[Attempt, ...] = ()

    @property
    def newest(self) -> Attempt | None:
        """The attempt that was opened last."""
        return self.attempts[-1] if self.attempts else None

    @property
    def is_open(self) -> bool:
        """Whether an attempt stands for it."""
        return any(a.open for a in self.attempts)

    @property
    def is_ready(self) -> bool:
        """Whether a prompt to it would be answered now."""
        return any(a.ready for a in self.attempts)

    def newest_in(self, lane: Lane) -> Attempt | None:
        """Return the attempt that was opened last in a lane."""
        return next((a for a in reversed(self.attempts) if a.lane == lane), None)


class Situation:
    """What policies judge by. Asking it costs the same for one replica as for a thousand."""

    def __init__(
        self, desired: Desired, attempts: Iterable[Attempt], seen: Observed, now: float, limits: Limits, target: int
    ) -> None:
        """`target`: how many replicas there are to be. `gpus_needed`: by each, as it is wanted now."""
        self.desired = desired
        self.seen = seen
        self.now = now
        self.limits = limits
        self.target = target
        self.gpus_needed = gpus_asked(desired.spec.resources) if desired.spec is not None else 0
        self.gpus_held = 0
        self._attempts: dict[str, Attempt] = {}
        self._of_replica: dict[int, dict[str, Attempt]] = {}
        self._ready: dict[int, int] = {}
        self._left: dict[int, int] = {}
        self._other_launches = 0
        self.opened = 0
        """How many attempts were opened in this pass."""
        for attempt in attempts:
            self.put(attempt)

    @property
    def attempts(self) -> tuple[Attempt, ...]:
        """All attempts, as they are by now."""
        return tuple(self._attempts.values())

    def put(self, attempt: Attempt) -> None:
        """Take an attempt as it is from now on."""
        before = self._attempts.get(attempt.token)
        if before is not None:
            self._count(before, -1)
        self._count(attempt, 1)
        self._attempts[attempt.token] = attempt
        self._of_replica.setdefault(attempt.replica, {})[attempt.token] = attempt

    def open(self, attempt: Attempt) -> None:
        """Take a new attempt, whose job is to be submitted."""
        self.put(attempt)
        self.opened += 1

    def replica(self, number: int) -> Replica:
        """Return one replica as it is by now."""
        mine = self._of_replica.get(number, {}).values()
        return Replica(number=number, attempts=tuple(sorted(mine, key=lambda a: a.incarnation)))

    @property
    def ready_replicas(self) -> int:
        """How many of the wanted replicas are ready."""
        return len(self._ready)

    def ready_without(self, attempt: Attempt) -> int:
        """Return how many of the wanted replicas are ready if this attempt is not."""
        is_the_only_one = attempt.ready and self._ready[attempt.replica] == 1
        return self.ready_replicas - is_the_only_one

    @property
    def replicas_left(self) -> int:
        """How many of the wanted replicas have anything on the cluster."""
        return len(self._left)

    @property
    def is_left_of_another_launch(self) -> bool:
        """Whether anything is left on the cluster of what was launched otherwise than is wanted now."""
        return self._other_launches > 0

    @property
    def is_readable(self) -> bool:
        """Whether the cluster answers: nothing is begun, and nothing that serves is replaced, while it does not."""
        return self.seen.snapshot is not None and self.seen.reading_failure is None

    def is_certain(self, attempt: Attempt) -> bool:
        """Whether the cluster answers, and is to be believed about this attempt."""
        return self.is_readable and not evidence.is_doubted(attempt, self.seen)

    def _count(self, attempt: Attempt, by: int) -> None:
        is_left = attempt.gone_at is None
        self.gpus_held += by * attempt.gpus * is_left
        self._other_launches += by * (is_left and attempt.digest != self.desired.digest)
        if attempt.replica < self.target:
            _add(self._ready, attempt.replica, by * attempt.ready)
            _add(self._left, attempt.replica, by * is_left)


def _add(counts: dict[int, int], replica: int, by: int) -> None:
    """Count; what comes to nothing is left out, so that asking how many there are costs nothing."""
    counts[replica] = counts.get(replica, 0) + by
    if not counts[replica]:
        del counts[replica]
