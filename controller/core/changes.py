"""How a change goes through the replicas: which may change now, beside what serves or after its end.

Where engines may overlap, what serves hands over to a successor beside it (`hand_over`), as many replicas at a time as
`surge` allows. Where they may not, or a ceiling has no room for a successor, what serves ends before, as many replicas
at a time as `max_unavailable` allows. Either way the next one waits until those before serve, and for ever if one of
them does not come to it.
"""

from __future__ import annotations

from controller.core.attempt import Attempt
from controller.core.marks import Mark
from controller.core.quota import excess
from controller.core.situation import Replica, Situation


def may_change(replica: Replica, situation: Situation) -> bool:
    """Whether a replica may have a successor now because of a change; one whose change has begun goes first."""
    surge = situation.desired.spec.surge if situation.desired.spec is not None else 0
    if Mark.UNDER_WAY in situation.marks(replica.number):
        return situation.marked(Mark.BESIDE) < surge
    under_way = situation.marked(Mark.UNDER_WAY) + possible(situation) - situation.replicas_left
    return not situation.marked(Mark.FAILED) and under_way < surge


def may_end_before(attempt: Attempt, situation: Situation) -> bool:
    """Whether what serves may end before its replacement starts, since that can't be beside it."""
    spec = situation.desired.spec
    if spec is None or situation.marked(Mark.FAILED):
        return False
    if spec.changes_beside and not (no_room(situation) and may_change(situation.replica(attempt.replica), situation)):
        return False
    held = situation.gpus_held - attempt.gpus
    if excess(situation.seen.grant.quota, situation.gpus_needed, held) is not None:
        return False
    most = spec.max_unavailable if spec.changes_beside else max(spec.max_unavailable, 1)
    return possible(situation) - situation.ready_without(attempt) <= most


def no_room(situation: Situation) -> str | None:
    """Say which ceiling on GPUs leaves no room for a successor, though nothing is about to be given back."""
    spec = situation.desired.spec
    if spec is None or not spec.changes_beside or situation.gives_back:
        return None
    found = excess(situation.seen.grant.quota, situation.gpus_needed, situation.gpus_held)
    return found.message if found is not None else None


def possible(situation: Situation) -> int:
    """Return how many replicas there can be now: what a ceiling leaves no room for is not waited for."""
    is_room = excess(situation.seen.grant.quota, situation.gpus_needed, situation.gpus_held) is None
    return situation.target if is_room else situation.replicas_left
