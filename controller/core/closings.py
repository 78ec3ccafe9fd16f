"""Which attempts to close: policies, asked one after another; the first that has a reason closes the attempt.

A new policy is a function that says why, and a line in `CLOSINGS` that says how the attempt ends.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from controller.core.attempt import Attempt
from controller.core.outcomes import Outcome
from controller.core.quota import excess, spent
from controller.core.situation import Situation


@dataclass(frozen=True, slots=True, kw_only=True)
class Closing:
    """Why an open attempt is closed."""

    outcome: Outcome
    message: str


ClosingPolicy = Callable[[Attempt, Situation], str | None]
"""Says in a sentence why the attempt is to be closed; `None` if it has nothing against it."""


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
    """It was launched otherwise than is wanted now, and its replacement may begin.

    `rolling`: one at a time, and one that serves only if all others do. `recreate`: all at once.
    """
    desired = situation.desired
    if desired.spec is None or attempt.digest == desired.digest or not situation.is_certain(attempt):
        return None
    is_rolling = desired.spec.update_strategy == "rolling"
    if is_rolling and attempt.ready and situation.ready_without(attempt) < _possible(situation) - 1:
        return None
    return f"The service was changed (generation {desired.generation})."


CLOSINGS: tuple[tuple[Outcome, ClosingPolicy], ...] = (
    (Outcome.STOPPED, stopped),
    (Outcome.QUOTA_EXCEEDED, quota_exceeded),
    (Outcome.SCALED_DOWN, scaled_down),
    (Outcome.OUTDATED, outdated),
)


def closing(attempt: Attempt, situation: Situation) -> Closing | None:
    """Return why an attempt is to be closed; `None` if it is wanted."""
    verdicts = ((outcome, policy(attempt, situation)) for outcome, policy in CLOSINGS)
    return next((Closing(outcome=outcome, message=why) for outcome, why in verdicts if why is not None), None)


def _possible(situation: Situation) -> int:
    """Return how many replicas there can be now: what a ceiling leaves no room for is not waited for."""
    is_room = excess(situation.seen.grant.quota, situation.gpus_needed, situation.gpus_held) is None
    return situation.target if is_room else situation.replicas_left
