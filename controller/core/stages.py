"""How far a replica is on its way to be ready, and what there is to say of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum

from api.contract.job.words import Step
from api.contract.status import Progress, time_of_day
from controller.core import evidence, maintenance
from controller.core.attempt import Attempt
from controller.core.drive import Standing
from controller.core.fold import REACH
from controller.core.job_files import JobFiles
from controller.core.jobs import Job, JobPhase
from controller.core.observed import Observed
from controller.core.openings import Waits
from controller.core.situation import Situation


class Rank(IntEnum):
    """How far a replica is on its way to be ready."""

    BARRED = -1
    """Its job never starts as things are."""
    HELD = 0
    """Nothing of it is there."""
    ENDING = 1
    """Something of an earlier attempt is to end before."""
    QUEUED = 2
    BUILDING = 3
    STARTING = 4
    UNANSWERED = 5
    """It was ready before."""


@dataclass(frozen=True, slots=True, order=True)
class Stage:
    """How far a replica is, the word for it, and what there is to say."""

    rank: Rank
    progress: Progress = field(compare=False)
    message: str = field(compare=False)


BEGINS_SECONDS = 15.0
"""After this time a job that Slurm has started and that has not claimed its attempt is said to be held up."""


def stage_of(standing: Standing, situation: Situation) -> Stage:
    """Return how far a replica is that is not ready."""
    attempt, held, seen = standing.replica.newest, standing.hold, situation.seen
    if held is not None and held.waits is Waits.STRAY:
        return Stage(Rank.ENDING, Progress.SUBMITTING, held.message)
    if held is not None and held.waits is Waits.QUOTA:
        return Stage(Rank.HELD, Progress.QUOTA_EXCEEDED, held.message)
    if held is not None and held.message:
        return Stage(Rank.HELD, Progress.SUBMITTING, held.message)
    if attempt is None:
        return Stage(Rank.HELD, Progress.SUBMITTING, "It is about to be submitted.")
    if not attempt.open:
        return _between(attempt, seen)
    if attempt.draining_since is not None:
        message = f"The job {attempt.job_id} finishes what it has in flight, and is replaced after that."
        return Stage(Rank.ENDING, Progress.SUBMITTING, message)
    if attempt.started_at is None:
        return _queued(attempt, situation)
    return _running(attempt, seen, situation.now)


def _running(attempt: Attempt, seen: Observed, now: float) -> Stage:
    files = seen.files.get(attempt.token, JobFiles())
    suspended = _suspended(attempt, seen)
    if suspended is not None:
        message = f"The job {attempt.job_id} is suspended on {attempt.node}: its engine goes on when Slurm resumes it."
        return Stage(Rank.STARTING, Progress.STARTING, f"{message} {suspended.advice}".rstrip())
    if _is_torn_down(attempt, seen):
        return Stage(Rank.ENDING, Progress.STARTING, _teardown(attempt, attempt.unready_since))
    where = f"The job {attempt.job_id} runs on {attempt.node}"
    if attempt.claimed_at is None and attempt.started_at is not None and now > attempt.started_at + BEGINS_SECONDS:
        held_up = (
            f"{where} since {time_of_day(attempt.started_at)}, and has not begun its work: slurm.prologue, or the "
            "site's own Prolog, has not come to its end there, or run_dir is not the same folder there. "
            "Which of them: ai-factory doctor."
        )
        return Stage(Rank.STARTING, Progress.STARTING, held_up)
    if files.step == Step.IMAGE:
        detail = f": {files.detail}" if files.detail else ""
        return Stage(Rank.BUILDING, Progress.BUILDING_IMAGE, f"{where}; its image is being made{detail}.")
    probe = seen.probes.get(attempt.token)
    if probe is not None and not probe.asked:
        return Stage(Rank.UNANSWERED, Progress.STARTING, f"{where}, but its engine can't be asked: {probe.message}.")
    if probe is not None and evidence.is_out_of_reach(attempt, files, seen):
        message = f"{where} and listens, but can't be reached from the controller's host: {probe.message}. {REACH}"
        return Stage(Rank.UNANSWERED, Progress.STARTING, message)
    if attempt.ready_at is not None:
        return Stage(Rank.UNANSWERED, Progress.STARTING, f"{where}, but its engine does not answer.")
    if files.detail:
        return Stage(Rank.STARTING, Progress.STARTING, f"{files.detail} (job {attempt.job_id} on {attempt.node}).")
    return Stage(Rank.STARTING, Progress.STARTING, f"{where}; its engine is starting.")


def _suspended(attempt: Attempt, seen: Observed) -> Job | None:
    job = _job(attempt, seen)
    return job if job is not None and job.phase is JobPhase.SUSPENDED else None


def _is_torn_down(attempt: Attempt, seen: Observed) -> bool:
    job = _job(attempt, seen)
    return job is not None and job.phase is JobPhase.COMPLETING


def _job(attempt: Attempt, seen: Observed) -> Job | None:
    return next((j for j in evidence.jobs_of(attempt, seen) if j.job_id == attempt.job_id), None)


def _teardown(attempt: Attempt, since: float | None) -> str:
    """Say that a node still works at a job's end; a time of day, which stays the same from pass to pass."""
    when = f" since {time_of_day(since)}" if since is not None else ""
    return f"The job {attempt.job_id} is being torn down on {attempt.node}{when} (Slurm: COMPLETING)."


def _between(attempt: Attempt, seen: Observed) -> Stage:
    if attempt.gone_at is None and _is_torn_down(attempt, seen):
        message = f"{_teardown(attempt, attempt.closed_at)} It ended as {attempt.outcome}, and is replaced after that."
        return Stage(Rank.ENDING, Progress.SUBMITTING, message)
    if attempt.gone_at is None:
        message = f"The job {attempt.job_id or attempt.token} is being ended: {attempt.outcome}. {attempt.message}"
        return Stage(Rank.ENDING, Progress.SUBMITTING, message.rstrip())
    message = f"It will be tried again after {attempt.outcome}. {attempt.message}".rstrip()
    return Stage(Rank.ENDING, Progress.BACK_OFF, message)


def _queued(attempt: Attempt, situation: Situation) -> Stage:
    job = maintenance.pending(attempt, situation)
    if job is None:
        if attempt.job_id is None:
            open_ = f" Whether Slurm has its job is not known yet: {attempt.message}" if attempt.message else ""
            return Stage(Rank.HELD, Progress.SUBMITTING, f"It is being submitted.{open_}")
        return Stage(Rank.QUEUED, Progress.QUEUED, f"The job {attempt.job_id} is queued.")
    if (
        job.is_kept_back and len(evidence.jobs_of(attempt, situation.seen)) == 1
    ):  # an earlier job of its name, for which it waits too, is listed
        message = f"The job {job.job_id} waits for another one, which makes its image."
        return Stage(Rank.QUEUED, Progress.BUILDING_IMAGE, message)
    return Stage(Rank.QUEUED if job.bar is None else Rank.BARRED, Progress.QUEUED, why_queued(job))


def why_queued(job: Job) -> str:
    """Say why a job is queued, and what to do about it."""
    reason = f" ({job.reason})" if job.reason else ""
    is_barred = " and can't start as things are" if job.bar is not None else ""
    return f"The job {job.job_id} is queued{is_barred}{reason}. {job.advice}".rstrip()
