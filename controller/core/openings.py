"""Which attempts to open, and what keeps them from being opened: two lists of policies; the first verdict counts.

A new policy is a function and a line in `OPENINGS` or `HOLDS`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from api.contract.job.words import Lane
from controller.core import evidence, hand_over
from controller.core.attempt import Attempt, HandOverReason
from controller.core.changes import may_change
from controller.core.quota import excess
from controller.core.retries import InARow, after, final_word, retry_at
from controller.core.situation import Replica, Situation


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """A replica needs an attempt, in this lane."""

    lane: Lane
    beside: HandOverReason | None = None
    """Why it may live beside what is left of the other lane; `None`: it may not."""


class Waits(StrEnum):
    """What an attempt waits for before it is opened."""

    REFUSED = "refused"
    GIVEN_UP = "given up"
    STRAY = "stray"
    BACK_OFF = "back-off"
    SILENCE = "silence"
    LEFT_OVER = "left over"
    OTHER_LAUNCH = "other launch"
    ROLLOUT = "rollout"
    QUOTA = "quota"
    TURN = "turn"


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """What keeps an attempt from being opened now."""

    waits: Waits
    message: str = ""
    until: float | None = None
    """When it is over by itself, if that is known."""
    for_gpus: bool = False
    """Whether it has only to wait for GPUs that other services hold."""


OpeningPolicy = Callable[[Replica, Situation], Opening | None]
HoldPolicy = Callable[[Replica, Opening, Situation], Hold | None]


# What to open


def missing(replica: Replica, _situation: Situation) -> Opening | None:
    """Nothing stands for the replica. A replacement opens in the lane of what it replaces."""
    if replica.is_open:
        return None
    return Opening(lane=replica.newest.lane if replica.newest is not None else Lane.MAIN)


def hands_over(replica: Replica, situation: Situation) -> Opening | None:
    """What stands for the replica has to go before long."""
    spec, attempt = situation.desired.spec, hand_over.standing(replica, situation)
    if attempt is None or spec is None or spec.kind == "job" or not spec.may_overlap:
        return None
    why = hand_over.reason(attempt, situation)
    return Opening(lane=hand_over.other(attempt.lane), beside=why) if why is not None else None


OPENINGS: tuple[OpeningPolicy, ...] = (missing, hands_over)


# What keeps it from being opened


def refused(_replica: Replica, _opening: Opening, situation: Situation) -> Hold | None:
    """What people want can't be launched."""
    return Hold(waits=Waits.REFUSED) if situation.desired.spec is None else None


def given_up(replica: Replica, opening: Opening, situation: Situation) -> Hold | None:
    """It completed, or failed too often in this generation."""
    last = replica.newest_in(opening.lane)
    word = final_word(last, situation.desired, situation.limits) if last is not None else None
    return Hold(waits=Waits.GIVEN_UP, message=word) if word is not None else None


def stray(replica: Replica, _opening: Opening, situation: Situation) -> Hold | None:
    """The cluster runs a job for it that no attempt stands for."""
    found = next((s for s in situation.seen.strays if s.replica == replica.number), None)
    if found is None:
        return None
    message = f"The cluster runs {found} for it, of which the database knows nothing more: it waits for its end."
    return Hold(waits=Waits.STRAY, message=message)


def backing_off(replica: Replica, opening: Opening, situation: Situation) -> Hold | None:
    """The attempt before it failed not long ago."""
    last = replica.newest_in(opening.lane)
    if last is None or last.closed_at is None:
        return None
    if last.closed_at > situation.now + evidence.CLOCKS_APART:
        # Another clock closed it in our future: how long ago that is nobody can tell.
        return None
    until = retry_at(last, _after(last, situation).failures, situation.limits)
    return Hold(waits=Waits.BACK_OFF, until=until) if situation.now < until else None


def silence(_replica: Replica, _opening: Opening, situation: Situation) -> Hold | None:
    """The cluster does not answer."""
    return None if situation.is_readable else Hold(waits=Waits.SILENCE)


def left_over(replica: Replica, opening: Opening, situation: Situation) -> Hold | None:
    """Something of an earlier attempt is left on the cluster: of this lane, or of the other and may not overlap."""
    spec = situation.desired.spec
    may_overlap = opening.beside is not None and spec is not None and spec.may_overlap
    left = [a for a in replica.attempts if a.gone_at is None]
    is_in_the_way = any(a.lane == opening.lane or not may_overlap for a in left)
    return Hold(waits=Waits.LEFT_OVER) if is_in_the_way else None


def other_launch(_replica: Replica, _opening: Opening, situation: Situation) -> Hold | None:
    """With `recreate` a launch begins only once nothing of another launch is left."""
    spec = situation.desired.spec
    is_rolling = spec is None or spec.update_strategy == "rolling"
    return Hold(waits=Waits.OTHER_LAUNCH) if not is_rolling and situation.is_left_of_another_launch else None


def out_of_step(replica: Replica, opening: Opening, situation: Situation) -> Hold | None:
    """As many others change as may at a time, or what they were changed to has failed."""
    is_free = opening.beside != HandOverReason.CHANGED or may_change(replica, situation)
    return None if is_free else Hold(waits=Waits.ROLLOUT)


def over_quota(_replica: Replica, _opening: Opening, situation: Situation) -> Hold | None:
    """A ceiling on GPUs leaves no room for it."""
    found = excess(situation.seen.grant.quota, situation.gpus_needed, situation.gpus_held)
    return Hold(waits=Waits.QUOTA, message=found.message, for_gpus=found.others_may_help) if found is not None else None


def out_of_turn(_replica: Replica, _opening: Opening, situation: Situation) -> Hold | None:
    """The pace of submissions lets no more through now."""
    jobs = situation.seen.grant.jobs
    if jobs is None or situation.opened < jobs:
        return None
    return Hold(waits=Waits.TURN, message="It waits for its turn to be submitted: many are at once.")


HOLDS: tuple[HoldPolicy, ...] = (
    refused,
    given_up,
    stray,
    backing_off,
    silence,
    left_over,
    other_launch,
    out_of_step,
    over_quota,
    out_of_turn,
)


def opening(replica: Replica, situation: Situation) -> Opening | None:
    """Return what a replica needs; `None` if it has it."""
    verdicts = (policy(replica, situation) for policy in OPENINGS)
    return next((verdict for verdict in verdicts if verdict is not None), None)


def hold(replica: Replica, wanted: Opening, situation: Situation) -> Hold | None:
    """Return what keeps an attempt from being opened now; `None` if nothing does."""
    verdicts = (policy(replica, wanted, situation) for policy in HOLDS)
    return next((verdict for verdict in verdicts if verdict is not None), None)


def before(replica: Replica, lane: Lane, situation: Situation) -> InARow:
    """Return what failed in a row before the next attempt in a lane."""
    last = replica.newest_in(lane)
    return _after(last, situation) if last is not None else InARow()


def _after(last: Attempt, situation: Situation) -> InARow:
    """Count failures of what is wanted now; what was launched otherwise says nothing of it."""
    return after(last, situation.limits) if last.digest == situation.desired.digest else InARow()
