"""A reason to open a replica's other lane, which the project itself does not give yet: each attempt has its time.

Once an attempt has run for `TERM`, the other lane opens beside it; when that one is ready, the older is closed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from unittest import mock

from api.contract.job.words import Lane
from controller.core import openings
from controller.core.attempt import Attempt
from controller.core.closings import CLOSINGS
from controller.core.openings import Opening
from controller.core.outcomes import Outcome
from controller.core.situation import Replica, Situation

TERM = 5.0
"""Seconds."""
REASON = "HandOver"


def hand_over(replica: Replica, situation: Situation) -> Opening | None:
    """What stands for a replica has served its time."""
    standing = [a for a in replica.attempts if a.open]
    if len(standing) != 1 or not standing[0].ready or situation.now < (standing[0].started_at or 0.0) + TERM:
        return None
    return Opening(lane=Lane.B if standing[0].lane is Lane.MAIN else Lane.MAIN, beside=REASON)


def handed_over(attempt: Attempt, situation: Situation) -> str | None:
    """A younger attempt in the other lane is ready."""
    others = [a for a in situation.replica(attempt.replica).attempts if a.ready and a.incarnation > attempt.incarnation]
    return "Another one took over." if others else None


@contextmanager
def in_use(while_: Callable[[], bool]) -> Iterator[None]:
    """Have the core hand over while that holds; what was begun is ended at any rate."""

    def if_wanted(replica: Replica, situation: Situation) -> Opening | None:
        return hand_over(replica, situation) if while_() else None

    with (
        mock.patch("controller.core.openings.OPENINGS", (*openings.OPENINGS, if_wanted)),
        mock.patch("controller.core.closings.CLOSINGS", (*CLOSINGS, (Outcome.SUPERSEDED, handed_over))),
    ):
        yield
