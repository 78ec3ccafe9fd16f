"""Why attempts end, in one word each, and what each word means for the next attempt."""

from __future__ import annotations

from enum import StrEnum

from api.contract.job.words import ExitReason
from controller.core.attempt import Attempt
from controller.core.job_files import JobExit
from controller.core.jobs import Job, JobEnd


class Outcome(StrEnum):
    """Words for the outcome of an attempt. Why the wrapper says that it ended (`ExitReason`) is used as it is."""

    COMPLETED = "Completed"
    EXITED = "Exited"
    FAILED = "Failed"
    OUT_OF_MEMORY = "OutOfMemory"
    STARTUP_TIMEOUT = "StartupTimeout"
    UNREACHABLE = "Unreachable"
    UNHEALTHY = "Unhealthy"
    SUBMIT_REJECTED = "SubmitRejected"
    SUBMIT_DEFERRED = "SubmitDeferred"
    NEVER_STARTED = "NeverStarted"
    CANCELLED = "Cancelled"
    PREEMPTED = "Preempted"
    TIME_LIMIT = "TimeLimit"
    NODE_FAILED = "NodeFailed"
    REQUEUED = "Requeued"
    VANISHED = "Vanished"
    STOPPED = "Stopped"
    SCALED_DOWN = "ScaledDown"
    OUTDATED = "Outdated"
    SUPERSEDED = "Superseded"
    QUOTA_EXCEEDED = "QuotaExceeded"


_BY_CLUSTER = {
    JobEnd.CANCELLED: (Outcome.CANCELLED, "The job was cancelled by hand."),
    JobEnd.PREEMPTED: (Outcome.PREEMPTED, "The job was preempted."),
    JobEnd.TIME_LIMIT: (Outcome.TIME_LIMIT, "The job came to its time limit."),
    JobEnd.DEADLINE: (Outcome.TIME_LIMIT, "The job came to its deadline."),
    JobEnd.NODE_FAILED: (Outcome.NODE_FAILED, "The job's node failed."),
    JobEnd.BOOT_FAILED: (Outcome.NODE_FAILED, "The job's node did not come up."),
    JobEnd.OUT_OF_MEMORY: (
        Outcome.OUT_OF_MEMORY,
        "The job used more memory than it asked for. Raise resources.memory.",
    ),
}

WISHED = frozenset({Outcome.STOPPED, Outcome.SCALED_DOWN, Outcome.OUTDATED, Outcome.SUPERSEDED, Outcome.QUOTA_EXCEEDED})
"""Ends that we brought about: people want something else now, have adopted something else, or set a ceiling."""

NOT_A_FAULT = WISHED | {
    Outcome.COMPLETED,
    Outcome.SUBMIT_DEFERRED,
    Outcome.NEVER_STARTED,
    Outcome.CANCELLED,
    Outcome.PREEMPTED,
    Outcome.TIME_LIMIT,
    Outcome.NODE_FAILED,
    Outcome.REQUEUED,
    Outcome.VANISHED,
    ExitReason.TERMINATED,
}
"""Ends that say nothing against what was launched: they alone never make a service count as failed."""


def of_job(job: Job, told: JobExit | None, *, ends_by_itself: bool) -> tuple[str, str, int | None]:
    """Return outcome, message and exit code of a job that ended, by what the cluster and its wrapper say of it."""
    if job.end in _BY_CLUSTER:
        outcome, message = _BY_CLUSTER[job.end]
        return outcome, message, told.code if told else job.exit_code
    if told is not None:
        return of_exit(told, ends_by_itself=ends_by_itself)
    if job.end is JobEnd.COMPLETED and ends_by_itself:
        return Outcome.COMPLETED, "The job completed.", job.exit_code
    if job.end is JobEnd.COMPLETED:
        return Outcome.EXITED, "The job ended without leaving a record of why.", job.exit_code
    how = f"signal {job.signal}" if job.signal else f"exit code {job.exit_code}"
    return Outcome.FAILED, f"The job ended as {job.state} with {how}. Its logs may say why.", job.exit_code


def of_exit(told: JobExit, *, ends_by_itself: bool) -> tuple[str, str, int]:
    """Return outcome, message and exit code of an engine's end as the wrapper records it."""
    if ends_by_itself and told.code == 0 and told.reason == ExitReason.ENGINE_EXITED:
        return Outcome.COMPLETED, "The job completed.", 0
    if told.reason == ExitReason.TIME_LIMIT:
        return Outcome.TIME_LIMIT, "The job came to its time limit.", told.code
    return told.reason, told.message or f"It ended with exit code {told.code}.", told.code


def is_fault(attempt: Attempt) -> bool:
    """Whether this attempt's end speaks against what was launched."""
    return attempt.outcome is not None and attempt.outcome not in NOT_A_FAULT
