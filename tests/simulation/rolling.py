"""What must hold while changes and scaling go through the replicas of a service."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from controller.core.attempt import Attempt, HandOverReason
from controller.core.desired import Desired
from controller.core.outcomes import Outcome, is_fault
from controller.core.plan import Plan as ServicePlan
from controller.ports import Record

if TYPE_CHECKING:
    from tests.simulation.world import Plan


def violation(record: Record, plan: ServicePlan, mine: Sequence[Attempt], world: Plan) -> str | None:
    """Return what is wrong with a plan, after which the attempts of its service are these."""
    desired, known = record.desired, {a.token: a for a in record.attempts}
    beside = {r for r, attempts in by_replica(mine).items() if is_changing(attempts)}
    if len(beside) > world.surge:
        return f"of {len(beside)} replicas two are there because of a change: {sorted(beside)}"
    for attempt in plan.attempts:
        if desired.paused and is_a_change(attempt, known):
            return f"{attempt.token} was changed though changes are held back"
        if (
            attempt.token not in known
            and attempt.beside == HandOverReason.CHANGED
            and failed_elsewhere(attempt, mine, desired)
        ):
            return f"{attempt.token} was opened for a change that has failed in another replica"
        before = known.get(attempt.token)
        if before is not None and before.open and not attempt.open and was_ready(attempt):
            wrong = ended_too_soon(attempt, mine, desired, world)
            if wrong is not None:
                return wrong
    return None


def is_a_change(attempt: Attempt, known: Mapping[str, Attempt]) -> bool:
    """Whether an attempt was opened, or is ended, because the service was changed, and for no other reason."""
    before = known.get(attempt.token)
    if before is None:
        return attempt.beside == HandOverReason.CHANGED
    return before.open and attempt.outcome == Outcome.OUTDATED


def by_replica(attempts: Iterable[Attempt]) -> dict[int, list[Attempt]]:
    """Return the attempts of each replica, in order."""
    found: dict[int, list[Attempt]] = {}
    for attempt in sorted(attempts, key=lambda a: a.incarnation):
        found.setdefault(attempt.replica, []).append(attempt)
    return found


def is_changing(attempts: Sequence[Attempt]) -> bool:
    """Whether the newest that is left of a replica was opened beside another one because of a change."""
    left = [a for a in attempts if a.gone_at is None]
    return len(left) > 1 and left[-1].beside == HandOverReason.CHANGED


def failed_elsewhere(fresh: Attempt, mine: Sequence[Attempt], desired: Desired) -> bool:
    """Whether what is tried has failed in another replica, where something else serves on."""
    return any(
        is_fault(attempts[-1]) and attempts[-1].digest == desired.digest and any(a.serves for a in attempts)
        for replica, attempts in by_replica(mine).items()
        if replica != fresh.replica and replica < desired.replicas and not fresh.faults and is_first(fresh, mine)
    )


def is_first(fresh: Attempt, mine: Sequence[Attempt]) -> bool:
    """Whether its replica has not been changed before."""
    before = [a for a in mine if a.replica == fresh.replica and a.incarnation == fresh.incarnation - 1]
    return all(a.digest != fresh.digest for a in before)


def ended_too_soon(attempt: Attempt, mine: Sequence[Attempt], desired: Desired, world: Plan) -> str | None:
    """Say why an attempt that was ready, and is closed now, should not be, or should have drained before."""
    others = [a for a in mine if a.serves and a.replica != attempt.replica and a.replica < desired.replicas]
    if attempt.outcome == Outcome.SCALED_DOWN and attempt.draining_since is None:
        return f"{attempt.token} was surplus, and has not drained"
    if attempt.outcome != Outcome.OUTDATED:
        return None
    if not may_end_before(attempt, desired, world):
        return f"{attempt.token} was closed because of a change, and a successor may be beside it"
    if others and attempt.draining_since is None:
        return f"{attempt.token} was closed because of a change, and has not drained though others serve"
    return None


def may_end_before(attempt: Attempt, desired: Desired, world: Plan) -> bool:
    """Whether a change may end it before its replacement starts: none may be beside it, or there may be no room."""
    return not desired.paused and attempt.digest != desired.digest and (world.surge == 0 or world.gpus > 0)


def may_make_room(attempt: Attempt, mine: Sequence[Attempt], desired: Desired) -> bool:
    """Whether it may end early so that its successor has its room: all others that are there serve meanwhile."""
    is_policy = desired.spec is not None and desired.spec.no_room == "shrink"
    others = [a for a in mine if a.replica != attempt.replica and a.replica < desired.replicas]
    serving, left = {a.replica for a in others if a.serves}, {a.replica for a in others if a.gone_at is None}
    return is_policy and bool(serving) and serving >= left


def ends_with_its_successor(attempt: Attempt, mine: Sequence[Attempt], desired: Desired, world: Plan) -> bool:
    """Whether another one of its replica served, and has to end, or drain before, for a change at the same moment."""
    others = [a for a in mine if a.replica == attempt.replica and a != attempt]
    ending = [a for a in others if attempt.closed_at in (a.closed_at, a.draining_since)]
    return any(was_ready(a) and may_end_before(a, desired, world) for a in ending)


def was_ready(attempt: Attempt) -> bool:
    """Whether an attempt was ready up to its end."""
    return attempt.ready_at is not None and attempt.unready_since is None


def ahead_of(attempt: Attempt, attempts: Iterable[Attempt], digest: str) -> list[Attempt]:
    """Return what stands for the same replica, and is ahead of it: what runs what is wanted, then the younger."""

    def rank(one: Attempt) -> tuple[bool, int]:
        return one.digest == digest, one.incarnation

    return [a for a in beside(attempt, attempts) if rank(a) > rank(attempt)]


def beside(attempt: Attempt, attempts: Iterable[Attempt]) -> list[Attempt]:
    """Return what else stands for the same replica."""
    return [a for a in attempts if a.replica == attempt.replica and a.open and a.token != attempt.token]
