"""Which attempts to close: policies, asked one after another; the first that has a reason closes the attempt.

A new policy is a function and a line in `CLOSINGS`.
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


ClosingPolicy = Callable[[Attempt, Situation], Closing | None]


def stopped(_attempt: Attempt, situation: Situation) -> Closing | None:
    """People want nothing of the service to run."""
    if situation.desired.running:
        return None
    return Closing(outcome=Outcome.STOPPED, message="The service was stopped.")


def quota_exceeded(attempt: Attempt, situation: Situation) -> Closing | None:
    """The GPU-hours are used up, and it has GPUs."""
    used_up = spent(situation.seen.grant.quota) if attempt.gpus and situation.desired.spec is not None else None
    return Closing(outcome=Outcome.QUOTA_EXCEEDED, message=used_up) if used_up is not None else None


def scaled_down(attempt: Attempt, situation: Situation) -> Closing | None:
    """There are to be fewer replicas."""
    if situation.desired.spec is None or attempt.replica < situation.target:
        return None
    return Closing(outcome=Outcome.SCALED_DOWN, message=f"The service was scaled to {situation.target}.")


def outdated(attempt: Attempt, situation: Situation) -> Closing | None:
    """It was launched otherwise than is wanted now, and its replacement may begin.

    `rolling`: one at a time, and one that serves only if all others do. `recreate`: all at once.
    """
    desired = situation.desired
    if desired.spec is None or attempt.digest == desired.digest or not situation.is_certain(attempt):
        return None
    is_rolling = desired.spec.update_strategy == "rolling"
    if is_rolling and attempt.ready and situation.ready_without(attempt) < _possible(situation) - 1:
        return None
    return Closing(outcome=Outcome.OUTDATED, message=f"The service was changed (generation {desired.generation}).")


CLOSINGS: tuple[ClosingPolicy, ...] = (stopped, quota_exceeded, scaled_down, outdated)


def closing(attempt: Attempt, situation: Situation) -> Closing | None:
    """Return why an attempt is to be closed; `None` if it is wanted."""
    verdicts = (policy(attempt, situation) for policy in CLOSINGS)
    return next((verdict for verdict in verdicts if verdict is not None), None)


def _possible(situation: Situation) -> int:
    """Return how many replicas there can be now: what a ceiling leaves no room for is not waited for."""
    is_room = excess(situation.seen.grant.quota, situation.gpus_needed, situation.gpus_held) is None
    return situation.target if is_room else situation.replicas_left
