"""One service in one pass: what is wanted, what is seen, and its attempts, counted as they are closed and opened."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from api.contract.gpus import gpus_asked
from api.contract.job.words import Lane
from controller.core import evidence
from controller.core.attempt import Attempt
from controller.core.desired import Desired
from controller.core.jobs import Job
from controller.core.limits import Limits
from controller.core.marks import Mark, marks
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
        return any(a.serves for a in self.attempts)

    @property
    def open(self) -> tuple[Attempt, ...]:
        """The attempts that stand for it: one, or two in a hand-over."""
        return tuple(a for a in self.attempts if a.open)

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
        self._attempts_left = 0
        self._other_launches = 0
        self._marks: dict[int, frozenset[Mark]] = {}
        self._marked: Counter[Mark] = Counter()
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
        self._mark(attempt.replica)

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
        is_the_only_one = attempt.serves and self._ready.get(attempt.replica) == 1
        return self.ready_replicas - is_the_only_one

    @property
    def replicas_left(self) -> int:
        """How many of the wanted replicas have anything on the cluster."""
        return len(self._left)

    @property
    def gives_back(self) -> bool:
        """Whether anything is on the cluster beside one job of each wanted replica: what it holds comes back."""
        return self._attempts_left > self.replicas_left

    def marks(self, number: int) -> frozenset[Mark]:
        """Return how far a change has come with a replica."""
        return self._marks.get(number, frozenset())

    def marked(self, mark: Mark) -> int:
        """Return with how many replicas a change has come so far."""
        return self._marked[mark]

    @property
    def is_left_of_another_launch(self) -> bool:
        """Whether anything is left on the cluster of what was launched otherwise than is wanted now."""
        return self._other_launches > 0

    @property
    def is_paused(self) -> bool:
        """Whether nothing is replaced because what is wanted has changed; what fails is replaced all the same."""
        return self.desired.paused

    @property
    def is_readable(self) -> bool:
        """Whether the cluster answers: nothing is begun, and nothing that serves is replaced, while it does not."""
        return self.seen.snapshot is not None and self.seen.reading_failure is None

    def is_certain(self, attempt: Attempt) -> bool:
        """Whether the cluster answers, and is to be believed about this attempt."""
        return self.is_readable and not evidence.is_doubted(attempt, self.seen)

    def ending_after(self, attempt: Attempt, within: float) -> int:
        """Count the others that serve and whose jobs end after an attempt's, within so many seconds.

        Of those that end at the same time the lower numbers go first.
        """
        if attempt.ends_at is None:
            return 0
        after = bisect_right(self._ends, (attempt.ends_at, attempt.replica))
        return max(bisect_left(self._ends, (attempt.ends_at + within, -1)) - after, 0)

    @cached_property
    def _ends(self) -> list[tuple[float, int]]:
        """When the jobs end that serve, and their replicas, as they were when this was first asked for."""
        serving = (a for a in self._attempts.values() if a.ready and a.draining_since is None)
        return sorted((a.ends_at, a.replica) for a in serving if a.ends_at is not None)

    @cached_property
    def longest_wait(self) -> float:
        """For how long the slowest of its queued jobs will have waited when it begins, as the cluster expects it.

        What waits for its owner's other jobs or for a maintenance, or never begins, says nothing of the queue; nor does
        what was told of a job before it was shortened.
        """
        queued = [a for a in self._attempts.values() if a.open and a.started_at is None]
        jobs = [(a, job) for a in queued if (job := evidence.pending(a, self.seen)) is not None]
        waiting = [(a, job) for a, job in jobs if a.token not in self.seen.shortened and _waits_for_nodes(job)]
        return max((max(job.begins_at or 0.0, self.now) - a.intent_at for a, job in waiting), default=0.0)

    def _count(self, attempt: Attempt, by: int) -> None:
        is_left = attempt.gone_at is None
        self.gpus_held += by * attempt.gpus * is_left
        self._attempts_left += by * is_left
        self._other_launches += by * (is_left and attempt.digest != self.desired.digest)
        if attempt.replica < self.target:
            _add(self._ready, attempt.replica, by * attempt.serves)
            _add(self._left, attempt.replica, by * is_left)

    def _mark(self, number: int) -> None:
        """Of a replica that is not wanted any more it counts only that two are there."""
        found = marks(self.replica(number).attempts, self.desired.digest)
        self._marked.subtract(self._marks.get(number, ()))
        self._marks[number] = found if number < self.target else found & {Mark.BESIDE}
        self._marked.update(self._marks[number])


def _waits_for_nodes(job: Job) -> bool:
    return job.bar is None and not (job.lacks_room or job.is_kept_back or job.awaits_maintenance)


def _add(counts: dict[int, int], replica: int, by: int) -> None:
    """Count; what comes to nothing is left out, so that asking how many there are costs nothing."""
    counts[replica] = counts.get(replica, 0) + by
    if not counts[replica]:
        del counts[replica]
