"""Hand-over: one attempt of a replica takes the traffic of another one that must end.

The successor opens in the other lane, early enough to be ready before the old job's time is over, or because the
service was changed. Once it is ready it is preferred, and the old one drains (`draining`): it gets no new requests, and
finishes those it has. Then it is closed. What somebody else has told to end drains at once. Each step is read off rows
and files, so that it goes on wherever a pass, a term or a program ended.
"""

from __future__ import annotations

from collections.abc import Callable, Container

from api.contract.job.words import Lane
from controller.core import evidence
from controller.core.attempt import Attempt, HandOverReason
from controller.core.draining import drained_from, must_end_at, undrained
from controller.core.jobs import JobPhase
from controller.core.lead import Lead, Way
from controller.core.outcomes import Outcome
from controller.core.situation import Replica, Situation


def lead(attempt: Attempt, situation: Situation) -> Lead:
    """Return what has to go before the end of an attempt's job.

    A wait and a start-up as long as jobs like it have had, or as a successor that is queued now will have had.
    """
    own, seen, spec = _way(attempt, situation), situation.seen, situation.desired.spec
    guess = spec.health.startup_guess if spec is not None and spec.health is not None else None
    return Lead(
        wait=max(seen.history.waits.expected(own=own.wait if own is not None else None), situation.longest_wait),
        startup=seen.history.startups.expected(own=own.startup if own is not None else None, guess=guess or 0.0),
        drain=situation.limits.drain_most,
    )


def _way(attempt: Attempt, situation: Situation) -> Way | None:
    """Return the way that an attempt came itself; `None` if its job has not begun."""
    if attempt.started_at is None:
        return None
    mine = situation.replica(attempt.replica).attempts
    forerunner = next((a for a in mine if a.incarnation == attempt.incarnation - 1 and attempt.beside), None)
    return Way(
        intent_at=attempt.intent_at,
        started_at=attempt.started_at,
        ready_at=attempt.ready_at,
        forerunner_closed_at=forerunner.closed_at if forerunner is not None else None,
        forerunner_gone_at=forerunner.gone_at if forerunner is not None else None,
    )


def successor_due_at(attempt: Attempt, situation: Situation) -> float | None:
    """Return when the successor of a ready attempt is to be opened; `None` if its job has no end that is known."""
    if attempt.ends_at is None or attempt.ready_at is None or attempt.started_at is None:
        return None
    needed, lasts = lead(attempt, situation), attempt.ends_at - attempt.started_at
    return needed.before(attempt.ends_at, lasts=lasts, others=situation.ending_after(attempt, needed.total))


def ends_soon(attempt: Attempt, situation: Situation) -> HandOverReason | None:
    """The time of its job is soon over."""
    due_at = successor_due_at(attempt, situation)
    return HandOverReason.TIME_LIMIT if due_at is not None and situation.now >= due_at else None


def changed(attempt: Attempt, situation: Situation) -> HandOverReason | None:
    """It was launched otherwise than is wanted now."""
    desired = situation.desired
    is_beside = desired.spec is not None and desired.spec.changes_beside
    if not is_beside or situation.is_paused:
        return None
    return HandOverReason.CHANGED if attempt.digest != desired.digest else None


def interrupted(attempt: Attempt, situation: Situation) -> HandOverReason | None:
    """Its job says that somebody else has told it to end."""
    return HandOverReason.INTERRUPTED if evidence.is_told_to_end(attempt, situation.seen) else None


def node_drains(attempt: Attempt, situation: Situation) -> HandOverReason | None:
    """Its node is being taken out of service; nothing new is placed there, so no successor meets the same fate."""
    job = evidence.job_of(attempt, situation.seen)
    leaves = job is not None and job.phase is JobPhase.RUNNING and job.node_leaves
    return HandOverReason.NODE_DRAINS if leaves else None


ReasonPolicy = Callable[[Attempt, Situation], HandOverReason | None]
"""Says why what stands for a replica is to hand it over; `None` if it may stay."""

REASONS: tuple[ReasonPolicy, ...] = (interrupted, node_drains, ends_soon, changed)
"""A new reason is a word, a function and its place here: the first that speaks counts."""


def reason(attempt: Attempt, situation: Situation) -> HandOverReason | None:
    """Return why an attempt that stands for its replica is to hand it over; `None` if it may stay."""
    verdicts = (policy(attempt, situation) for policy in REASONS)
    return next((word for word in verdicts if word is not None), None)


def other(lane: Lane) -> Lane:
    """Return the other one."""
    return Lane.B if lane is Lane.MAIN else Lane.MAIN


def refused_successor(attempt: Attempt, replica: Replica) -> Attempt | None:
    """Return the last successor of an attempt, if Slurm put off taking it; `None`: it did not."""
    last = replica.newest_in(other(attempt.lane))
    if last is None or last.incarnation < attempt.incarnation or last.outcome != Outcome.SUBMIT_DEFERRED:
        return None
    return last


def standing(replica: Replica, situation: Situation) -> Attempt | None:
    """Return the one attempt that stands for a replica and serves, or did until it was told to end.

    `None` if there is none, or another beside it.
    """
    only = replica.open[0] if len(replica.open) == 1 else None
    if only is None or only.serves:
        return only
    return only if only.draining_since is not None and evidence.is_told_to_end(only, situation.seen) else None


def ahead(attempt: Attempt, situation: Situation) -> list[Attempt]:
    """Return what is to have the traffic of an attempt once it is ready: who runs what is wanted, then the younger.

    What is told to end is behind all others, and ahead of none.
    """

    def rank(one: Attempt) -> tuple[bool, bool, int]:
        is_told = evidence.is_told_to_end(one, situation.seen)
        return not is_told, one.digest == situation.desired.digest, one.incarnation

    others = situation.replica(attempt.replica).open
    return [a for a in others if rank(a) > rank(attempt) and not evidence.is_told_to_end(a, situation.seen)]


def prefer(replica: Replica, situation: Situation, leaving: Container[str]) -> None:
    """Have those drain that one ahead of them serves for, and at once what has answered and is told to end.

    What has none ahead of it is preferred again, unless it is to go itself, or is, or may be, told to end.
    """
    seen = situation.seen
    for attempt in replica.open:
        others = ahead(attempt, situation)
        is_told = attempt.ready_at is not None and evidence.is_told_to_end(attempt, seen)
        stays = attempt.token not in leaving and evidence.says_nothing_of_its_end(attempt, seen)
        if attempt.draining_since is None and (is_told or any(a.serves for a in others)):
            situation.put(drained_from(attempt, situation.now))
        elif attempt.draining_since is not None and not others and stays:
            situation.put(undrained(attempt))


def look_again_at(situation: Situation) -> list[float]:
    """Return the times at which a hand-over goes on by itself."""
    limits, open_ = situation.limits, [a for a in situation.attempts if a.open]
    times = [successor_due_at(a, situation) for a in open_ if a.ready]
    times += [must_end_at(a, limits) for a in open_]
    times += [situation.now + limits.glance for a in open_ if a.draining_since is not None]
    return [t for t in times if t is not None]
