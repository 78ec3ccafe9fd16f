"""Which attempts to close: policies, asked one after another; the first that has a reason closes the attempt.

A new policy is a function that says why, and a line in `CLOSINGS` that says how the attempt ends: at once, or drained.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from controller.core import changes, draining, hand_over, room
from controller.core.attempt import Attempt, HandOverReason
from controller.core.marks import Mark
from controller.core.outcomes import Outcome
from controller.core.quota import spent
from controller.core.situation import Situation


@dataclass(frozen=True, slots=True, kw_only=True)
class Closing:
    """Why an open attempt is closed."""

    outcome: Outcome
    message: str
    drains: bool
    """Whether it first finishes what it has, without new requests."""


ClosingPolicy = Callable[[Attempt, Situation], str | None]
"""Says in a sentence why the attempt is to be closed; `None` if it has nothing against it."""

DrainPolicy = Callable[[Attempt, Situation], bool]
"""Says whether an attempt that is to be closed, and is ready, first drains."""


def stopped(_attempt: Attempt, situation: Situation) -> str | None:
    """People want nothing of the service to run."""
    return None if situation.desired.running else "The service was stopped."


def quota_exceeded(attempt: Attempt, situation: Situation) -> str | None:
    """The GPU-hours are used up, and it has GPUs."""
    return spent(situation.seen.grant.quota) if attempt.gpus and situation.desired.spec is not None else None


def scaled_down(attempt: Attempt, situation: Situation) -> str | None:
    """There are to be fewer replicas."""
    if situation.desired.spec is None or attempt.replica < situation.target:
        return None
    return f"The service was scaled to {situation.target}."


def outdated(attempt: Attempt, situation: Situation) -> str | None:
    """It was launched otherwise than is wanted now, and its replacement may begin only after it.

    `rolling`: what serves hands over where it can. `recreate`: all end at once.
    """
    desired, spec = situation.desired, situation.desired.spec
    if spec is None or attempt.digest == desired.digest or situation.is_paused or not situation.is_certain(attempt):
        return None
    why = f"The service was changed (generation {desired.generation})."
    if spec.update_strategy == "recreate":
        return why
    is_beside = len(situation.replica(attempt.replica).open) > 1
    if not attempt.ready:
        is_needed = is_beside or situation.marked(Mark.FAILED) > 0
        return None if is_needed and _may_come_back(attempt, situation) else why
    if _waits_for_successor(attempt, situation) or not changes.may_end_before(attempt, situation):
        return None
    ceiling = changes.no_room(situation)
    return why if ceiling is None else f"{why} There is no room for its successor beside it: {ceiling}"


def makes_room(attempt: Attempt, situation: Situation) -> str | None:
    """Its job ends before long, its successor has no room beside it, and others serve meanwhile."""
    if not room.may_make_room(attempt, situation):
        return None
    return "It ended before its time: its successor has no room beside it, and the others serve (update.no_room)."


def superseded(attempt: Attempt, situation: Situation) -> str | None:
    """Another one of its replica has its traffic, and it has finished what it had, or had time enough."""
    successor = next((a for a in hand_over.ahead(attempt, situation) if a.serves), None)
    until = draining.must_end_at(attempt, situation.limits)
    if successor is None or until is None:
        return None
    if draining.is_drained(attempt, situation):
        return f"Attempt {successor.incarnation} took over, and nothing was in flight any more."
    if situation.now >= until:
        return f"Attempt {successor.incarnation} took over; what was in flight had {situation.limits.drain_most:g} s."
    return None


def at_once(_attempt: Attempt, _situation: Situation) -> bool:
    """What is in flight on it is cut, or there is nothing."""
    return False


def drained(_attempt: Attempt, situation: Situation) -> bool:
    """What answers requests finishes them."""
    return situation.desired.spec is not None and situation.desired.spec.kind == "service"


def drained_beside_others(attempt: Attempt, situation: Situation) -> bool:
    """The only one that serves leaves no gap longer than need be."""
    spec = situation.desired.spec
    is_rolling = spec is not None and spec.update_strategy == "rolling"
    return is_rolling and drained(attempt, situation) and situation.ready_without(attempt) > 0


CLOSINGS: tuple[tuple[Outcome, ClosingPolicy, DrainPolicy], ...] = (
    (Outcome.STOPPED, stopped, at_once),
    (Outcome.QUOTA_EXCEEDED, quota_exceeded, at_once),
    (Outcome.SCALED_DOWN, scaled_down, drained),
    (Outcome.OUTDATED, outdated, drained_beside_others),
    (Outcome.MADE_ROOM, makes_room, drained),
    (Outcome.SUPERSEDED, superseded, at_once),
)


def closing(attempt: Attempt, situation: Situation) -> Closing | None:
    """Return why an attempt is to be closed; `None` if it is wanted."""
    for outcome, policy, drains in CLOSINGS:
        why = policy(attempt, situation)
        if why is not None:
            return Closing(outcome=outcome, message=why, drains=attempt.ready and drains(attempt, situation))
    return None


def _waits_for_successor(attempt: Attempt, situation: Situation) -> bool:
    """Whether what is to take over stands beside it; a change whose successors are to have no surge waits for none."""
    others = [a for a in situation.replica(attempt.replica).open if a.token != attempt.token]
    spec = situation.desired.spec
    is_beside_still = spec is not None and spec.changes_beside
    return any(is_beside_still or other.beside != HandOverReason.CHANGED for other in others)


def _may_come_back(attempt: Attempt, situation: Situation) -> bool:
    """Whether what served may do so again: nothing else is sure to take its place."""
    since = attempt.unready_since
    return since is not None and situation.now < since + situation.limits.unreachable_grace
