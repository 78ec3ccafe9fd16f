"""Whether a successor has room beside what serves; where it has none, a replica may end early to make room for it."""

from __future__ import annotations

from controller.core import changes, evidence, hand_over
from controller.core.attempt import Attempt, HandOverReason
from controller.core.quota import excess
from controller.core.situation import Situation

_ENDS_ANYHOW = (HandOverReason.TIME_LIMIT, HandOverReason.NODE_DRAINS)
"""What a replica hands over for that comes whether it does or not."""


def may_make_room(attempt: Attempt, situation: Situation) -> bool:
    """Whether an attempt may end before its time so that its successor has its room: the service is to be smaller then.

    As many others serve as with a change that finds no room. What has begun goes on.
    """
    spec = situation.desired.spec
    if spec is None or spec.no_room != "shrink" or spec.kind == "job" or not spec.may_overlap or not attempt.ready:
        return False
    others = situation.ready_without(attempt)
    is_enough = others > 0 and others >= changes.possible(situation) - max(spec.max_unavailable, 1)
    if not is_enough and attempt.draining_since is None:
        return False
    due_at = _due_at(attempt, situation)
    is_due = hand_over.reason(attempt, situation) in _ENDS_ANYHOW or (due_at is not None and situation.now >= due_at)
    return is_due and _has_none_beside(attempt, situation)


def look_again_at(situation: Situation) -> list[float]:
    """Return the times at which a replica may have to make room."""
    spec = situation.desired.spec
    if spec is None or spec.no_room != "shrink":
        return []
    return [at for a in situation.attempts if a.serves and (at := _due_at(a, situation)) is not None]


def _due_at(attempt: Attempt, situation: Situation) -> float | None:
    """Return from when on those whose jobs end soon after it, one after another, need the time that is left of its own.

    As with a successor, never before half of its time is over. `None`: its job has no end that is known.
    """
    if attempt.ends_at is None or attempt.started_at is None:
        return None
    each = hand_over.lead(attempt, situation).total + situation.limits.teardown_grace
    others = situation.ending_after(attempt, situation.target * each)
    return attempt.ends_at - min((1 + others) * each, (attempt.ends_at - attempt.started_at) / 2)


def _has_none_beside(attempt: Attempt, situation: Situation) -> bool:
    """Whether a limit lets no successor run beside an attempt: Slurm says so of its job, or a ceiling on GPUs does."""
    replica = situation.replica(attempt.replica)
    if len(replica.open) > 1:
        job = evidence.pending(replica.open[-1], situation.seen)
        return job is not None and job.lacks_room
    if hand_over.refused_successor(attempt, replica) is not None:
        return True
    held = excess(situation.seen.grant.quota, situation.gpus_needed, situation.gpus_held)
    return held is not None and not situation.gives_back
