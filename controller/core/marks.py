"""How far a change has come with each replica, as far as the next one waits for it."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

from controller.core.attempt import Attempt, HandOverReason
from controller.core.outcomes import is_fault


class Mark(StrEnum):
    """What is to be said of a replica in a rollout."""

    BESIDE = "beside"
    """Two of it are on the cluster because of a change."""
    UNDER_WAY = "under way"
    """Its change has begun, or nothing of it serves; and something of it is left on the cluster, or has failed."""
    FAILED = "failed"
    """What is wanted now was tried, has failed, and does not serve."""


def marks(attempts: Sequence[Attempt], digest: str) -> frozenset[Mark]:
    """Return the marks of a replica by its attempts, in order, where `digest` is wanted."""
    left = [a for a in attempts if a.gone_at is None]
    serving = [a for a in attempts if a.serves]
    is_tried = bool(attempts) and attempts[-1].digest == digest
    is_done = any(a.digest == digest for a in serving)
    found = set()
    if len(left) > 1 and left[-1].beside == HandOverReason.CHANGED:
        found |= {Mark.BESIDE, Mark.UNDER_WAY}
    if not is_done and is_tried and _has_failed(attempts[-1]):
        found |= {Mark.FAILED, Mark.UNDER_WAY}
    if not is_done and left and (is_tried or not serving):
        found.add(Mark.UNDER_WAY)
    return frozenset(found)


def _has_failed(attempt: Attempt) -> bool:
    """Whether it has failed, or is tried again after what failed."""
    return attempt.faults > 0 if attempt.open else is_fault(attempt)
