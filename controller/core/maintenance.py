"""Maintenance: a queued job that could not end before one is shortened to what fits, where its service allows that.

Slurm starts no job that would reach into a reservation of its nodes, and says so, but not which reservation that is.
The last one that begins within the job's time is taken for it: a job that is kept back all the same meets the one
before at the next look. So a node that is to be mended tonight shortens nothing that has room elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from api.contract.status import date_and_time
from controller.core import evidence
from controller.core.attempt import Attempt, HandOverReason, Shortening
from controller.core.jobs import Job, Maintenance
from controller.core.plan import Shorten
from controller.core.published import Event
from controller.core.situation import Situation

MARGIN = 1
"""Minutes by which a shortened job would end before the maintenance if it began at once: so long it has to begin."""
_MOMENT = 1.0
_UNSEEN = (
    "Slurm shows no maintenance that it would meet (scontrol show reservation): the site may hide its reservations "
    "(PrivateData). So it is not shortened to what would fit before, and waits for the end of the maintenance."
)


def shorten(situation: Situation) -> tuple[Shorten, ...]:
    """Return which queued jobs are to be shortened now, and to what."""
    return tuple(wish for wish in _wishes(situation) if situation.now >= _due_at(wish, situation))


def look_again_at(situation: Situation) -> list[float]:
    """Return when jobs are due to be shortened: again after a moment, and once one that fits now will no longer."""
    kept_back = [job for _, job in _queued(situation) if job.awaits_maintenance]
    return [_due_at(wish, situation) for wish in _wishes(situation)] + [
        at for job in kept_back if (at := _fits_until(job, situation)) is not None
    ]


def events(wishes: Iterable[Shorten], situation: Situation) -> tuple[Event, ...]:
    """Tell which jobs are shortened. Of one that waits on, and is shortened each minute, that is told once a term."""
    attempts = {a.token: a for a in situation.attempts}
    first = ((attempts[w.token], w) for w in wishes if w.token not in situation.seen.shortened)
    return tuple(Event(reason="Shortened", message=_told(attempt, wish)) for attempt, wish in first)


def pending(attempt: Attempt, situation: Situation) -> Job | None:
    """Return the job of an attempt that is queued; what there is to say of a maintenance is its advice."""
    job = evidence.pending(attempt, situation.seen)
    return replace(job, advice=_advice(attempt, job, situation)) if job is not None else None


def _wishes(situation: Situation) -> list[Shorten]:
    wishes = (_wish(attempt, job, situation) for attempt, job in _queued(situation))
    return [wish for wish in wishes if wish is not None]


def _queued(situation: Situation) -> list[tuple[Attempt, Job]]:
    if not situation.is_readable:
        return []
    queued = (a for a in situation.attempts if a.open and a.started_at is None)
    jobs = ((a, evidence.pending(a, situation.seen)) for a in queued)
    return [(attempt, job) for attempt, job in jobs if job is not None]


def _wish(attempt: Attempt, job: Job, situation: Situation) -> Shorten | None:
    """Return to what a job is to be shortened; `None`: it is not kept back, may not be, or too little would be left."""
    least, ahead = _least(attempt, situation), _ahead(job, situation)
    if not job.awaits_maintenance or least is None or ahead is None:
        return None
    is_worth_it = _minutes(_serves_from(attempt, situation), ahead) >= least
    minutes = _minutes(situation.now, ahead)
    return Shorten(token=attempt.token, minutes=minutes, before=ahead.begins_at) if is_worth_it else None


def _least(attempt: Attempt, situation: Situation) -> int | None:
    """Return the minutes below which a job is not shortened; `None`: it is not shortened at all."""
    spec = situation.desired.spec
    return spec.resources.time_min if spec is not None and attempt.digest == situation.desired.digest else None


def _ahead(job: Job, situation: Situation) -> Maintenance | None:
    """Return the last maintenance that begins within the time of a job, or goes on; `None`: none is seen."""
    snapshot, now = situation.seen.snapshot, situation.now
    until = now + job.time_limit if job.time_limit is not None else float("inf")
    known = snapshot.maintenances if snapshot is not None else ()
    met = (m for m in known if m.begins_at < until and m.ends_at > now)
    return max(met, key=lambda m: m.begins_at, default=None)


def _fits_until(job: Job, situation: Situation) -> float | None:
    """Return the moment after which a job that would begin then could not end before a maintenance that it does now."""
    snapshot = situation.seen.snapshot
    if job.time_limit is None or snapshot is None:
        return None
    left = (m.begins_at - job.time_limit for m in snapshot.maintenances)
    return min((at + _MOMENT for at in left if at >= situation.now), default=None)


def _serves_from(attempt: Attempt, situation: Situation) -> float:
    """Return from when on its job is of use: a successor because of a time limit is when that is over."""
    if attempt.beside != HandOverReason.TIME_LIMIT:
        return situation.now
    ends = (a.ends_at for a in situation.replica(attempt.replica).open if a.token != attempt.token)
    return max((end for end in ends if end is not None), default=situation.now)


def _minutes(since: float, ahead: Maintenance) -> int:
    return int((ahead.begins_at - since) // 60) - MARGIN


def _due_at(wish: Shorten, situation: Situation) -> float:
    """Return when a job may be shortened: not before a reading shows what came of the last time."""
    last, limits, snapshot = situation.seen.shortened.get(wish.token), situation.limits, situation.seen.snapshot
    if last is None:
        return situation.now
    pause = limits.backoff_most if last.trouble else limits.shorten_again
    is_read = snapshot is not None and snapshot.began_at > last.at
    return max(last.at + pause, situation.now if is_read else situation.now + limits.glance)


def _advice(attempt: Attempt, job: Job, situation: Situation) -> str:
    """Say what a job has to do with a maintenance, and what its owner may do; of all else its own advice tells."""
    last, ahead = situation.seen.shortened.get(attempt.token), _ahead(job, situation)
    least, wish = _least(attempt, situation), _wish(attempt, job, situation)
    if last is not None and last.trouble and job.awaits_maintenance:
        return f"It could not be shortened to {_so_that(last)}; that is tried again. {last.trouble}"
    if last is not None and not last.trouble and last.before > situation.now and not (ahead and job.awaits_maintenance):
        advice = "" if job.awaits_maintenance else job.advice
        return f"It was shortened to {_so_that(last)}. {advice}".rstrip()
    if not job.awaits_maintenance or (ahead is None and least is None):
        return job.advice
    if ahead is None:
        return _UNSEEN
    until = f"waits until that ends, at {date_and_time(ahead.ends_at)}"
    if ahead.begins_at <= situation.now:
        return f"A maintenance goes on: it {until}."
    begins = f"before the maintenance that begins at {date_and_time(ahead.begins_at)}"
    if wish is not None:
        return f"It is shortened to {_so_that(wish)}."
    if least is not None:
        return f"It would serve for less than resources.time_min ({least} min) {begins}, so it {until}."
    return (
        f"It could not end {begins}, so it {until}. It begins before with a lower resources.time_limit, or with a "
        "resources.time_min to which that may be lowered."
    )


def _told(attempt: Attempt, wish: Shorten) -> str:
    return f"Replica {attempt.replica}: job {attempt.job_id} is to be shortened to {_so_that(wish)}."


def _so_that(shortened: Shorten | Shortening) -> str:
    begins = date_and_time(shortened.before)
    return f"{shortened.minutes} min, so that it ends before the maintenance that begins at {begins}"
