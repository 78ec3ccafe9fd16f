"""Whether a service outlives the ends of its jobs: what stands in the way of a hand-over is told as soon as seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from api.contract.launch import LaunchSpec
from api.contract.status import Continuity, time_of_day
from controller.core import hand_over, maintenance
from controller.core.attempt import Attempt
from controller.core.drive import Standing
from controller.core.openings import Hold, Waits
from controller.core.quota import excess
from controller.core.situation import Replica, Situation

ACCEPT = "Lower what it asks for, have the limit raised, or accept the gap."
LONGER = "With a longer time limit (resources.time_limit) that comes less often."


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """What stands in the way of one replica's hand-over."""

    reason: Continuity
    message: str


def trouble(situation: Situation, standings: Sequence[Standing]) -> Trouble | None:
    """Return what stands in the way of a hand-over: no room before lateness, the lowest replica first.

    Of what none may be beside that is known from the first, and told of the replica that ends first.
    """
    spec = situation.desired.spec
    if spec is None or spec.kind == "job":
        return None
    if not spec.may_overlap:
        return _one_at_a_time(spec, situation, standings)
    found = [told for each in standings if (told := _of_replica(each, situation)) is not None]
    return next((told for told in found if told.reason is Continuity.NO_ROOM), found[0] if found else None)


def next_hand_over(situation: Situation) -> str:
    """Say which job ends first of those that are handed over, and when its successor is due; empty if none is.

    To the minute, so that what is learnt meanwhile changes it seldom.
    """
    spec = situation.desired.spec
    if spec is None or spec.kind == "job" or not spec.may_overlap:
        return ""
    alone = [hand_over.standing(situation.replica(number), situation) for number in range(situation.target)]
    due = [(at, a) for a in alone if a is not None and (at := hand_over.successor_due_at(a, situation)) is not None]
    if not due:
        return ""
    at, old = min(due, key=lambda each: (each[0], each[1].replica))
    return f"{_end_of(old)}; its successor is due at {time_of_day(at - at % 60)}." if at > situation.now else ""


def _one_at_a_time(spec: LaunchSpec, situation: Situation, standings: Sequence[Standing]) -> Trouble | None:
    serving = [(a.ends_at, a) for s in standings for a in s.replica.open if a.serves and a.ends_at is not None]
    if not serving:
        return None
    old = min(serving, key=lambda each: (each[0], each[1].replica))[1]
    why = "both would write to its volumes" if spec.volumes else f"update is {spec.update_strategy}"
    gap = hand_over.lead(old, situation).startup
    message = (
        f"{_end_of(old)}, and its successor begins only after that, since {why}. "
        f"The replica answers nobody from then on, for about {gap:.0f} s. {LONGER}"
    )
    return Trouble(reason=Continuity.ONE_AT_A_TIME, message=message)


def _of_replica(standing: Standing, situation: Situation) -> Trouble | None:
    replica = standing.replica
    open_ = [a for a in replica.attempts if a.open]
    old = open_[0] if open_ else None
    if old is None or old.ends_at is None or not old.ready or old.draining_since is not None:
        return None
    if len(open_) > 1:
        return _queued(old, open_[-1], situation)
    if standing.hold is not None:
        return _held(old, replica, standing.hold, situation)
    found = excess(situation.seen.grant.quota, situation.gpus_needed, situation.gpus_held)
    if found is None or found.others_may_help:
        return None
    return _no_room(old, f"there is no room for a successor beside it: {found.message}", situation)


def _queued(old: Attempt, successor: Attempt, situation: Situation) -> Trouble | None:
    """Judge a successor whose job is there, by why it is queued and by when it will begin."""
    job = maintenance.pending(successor, situation)
    if successor.started_at is not None or job is None or old.ends_at is None:
        return None
    if job.lacks_room:
        why = f"the job {job.job_id}, its successor, may not run beside it ({job.reason}): it begins when that one ends"
        return _no_room(old, f"{why}. {job.advice}".rstrip(), situation)
    needed = hand_over.lead(old, situation)
    never_begins = job.is_held or job.bar is not None
    is_too_late = job.begins_at is not None and job.begins_at + needed.startup > old.ends_at
    if not (never_begins or is_too_late or _is_serious(old, situation)):
        return None
    reason = f" ({job.reason})" if job.reason else ""
    forecast = f" Slurm expects it to begin at {time_of_day(job.begins_at)}." if job.begins_at is not None else ""
    return _late(old, f"the job {job.job_id}, its successor, is still queued{reason}.{forecast} {job.advice}".rstrip())


def _held(old: Attempt, replica: Replica, hold: Hold, situation: Situation) -> Trouble | None:
    """Judge a successor that can't be opened."""
    if hold.waits is Waits.QUOTA:
        return _no_room(old, f"there is no room for its successor: {hold.message}", situation)
    if (refused := hand_over.refused_successor(old, replica)) is not None:
        return _no_room(old, f"Slurm takes no successor for it: {refused.message}", situation)
    if not _is_serious(old, situation):
        return None
    return _late(old, f"its successor can't be opened yet ({hold.waits}). {hold.message}".rstrip())


def _is_serious(old: Attempt, situation: Situation) -> bool:
    if old.ends_at is None or old.started_at is None:
        return False
    needed = hand_over.lead(old, situation)
    return situation.now >= needed.serious(old.ends_at, lasts=old.ends_at - old.started_at)


def _no_room(old: Attempt, why: str, situation: Situation) -> Trouble:
    gap = hand_over.lead(old, situation).startup
    spec = situation.desired.spec
    if spec is not None and spec.no_room == "shrink" and situation.target > 1:
        then = f"The replica ends before that while the others serve, and answers nobody for about {gap:.0f} s."
    else:
        then = f"The replica answers nobody from then on, for about {gap:.0f} s."
    message = f"{_end_of(old)}, and {why} {then} {ACCEPT}"
    return Trouble(reason=Continuity.NO_ROOM, message=message)


def _late(old: Attempt, why: str) -> Trouble:
    message = f"{_end_of(old)}, and {why} The replica answers nobody from then on, until its successor does."
    return Trouble(reason=Continuity.SUCCESSOR_LATE, message=message)


def _end_of(old: Attempt) -> str:
    assert old.ends_at is not None
    return f"Replica {old.replica}: its job {old.job_id} ends at {time_of_day(old.ends_at)}"
