"""Why attempts end, in one word each, and what each word means for the next attempt."""

from __future__ import annotations

import re
from enum import StrEnum

from api.contract.job.words import ExitReason
from api.contract.launch import LaunchSpec
from controller.core.attempt import Attempt
from controller.core.job_files import JobExit, JobFiles
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
    MADE_ROOM = "MadeRoom"
    QUOTA_EXCEEDED = "QuotaExceeded"


_BY_CLUSTER = {
    JobEnd.CANCELLED: (Outcome.CANCELLED, "The job was cancelled by hand."),
    JobEnd.PREEMPTED: (Outcome.PREEMPTED, "The job was preempted."),
    JobEnd.TIME_LIMIT: (Outcome.TIME_LIMIT, "The job came to its time limit."),
    JobEnd.DEADLINE: (Outcome.TIME_LIMIT, "The job came to its deadline."),
    JobEnd.NODE_FAILED: (Outcome.NODE_FAILED, "The job's node failed."),
    JobEnd.BOOT_FAILED: (Outcome.NODE_FAILED, "The job's node did not come up."),
}

CANCELLED_EARLY = (
    "The job was cancelled on {node} before its script began: by hand, or by Slurm because the node's prolog failed "
    "(`sinfo -R --nodes={node}` says so; then tell the site)."
)
"""So ends a job that may not be requeued where a prolog fails; nothing but the node's drain tells (measured)."""

WISHED = frozenset(
    {
        Outcome.STOPPED,
        Outcome.SCALED_DOWN,
        Outcome.OUTDATED,
        Outcome.SUPERSEDED,
        Outcome.MADE_ROOM,
        Outcome.QUOTA_EXCEEDED,
    }
)
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


_NOT_EXECUTABLE = (126, 127)
"""Exit codes of a shell for a command that can't be run, or that there is not (POSIX, 2.8.2)."""

_MISTAKE: dict[str, re.Pattern[str]] = {
    ExitReason.ENGINE_EXITED: re.compile(
        # Apptainer and shells: there is no such command
        "executable file not found|command not found"
        # huggingface_hub, transformers and vLLM: there is no such model, or not for this token
        "|Repo id must be|Repository Not Found|RepositoryNotFoundError|GatedRepoError|404 Client Error"
        "|is not a valid model identifier|Invalid repository ID or local directory"
        # argparse: there is no such option
        "|error: (unrecognized arguments|argument |the following arguments are required)"
    ),
    ExitReason.IMAGE_FAILED: re.compile("No such file or directory|manifest unknown|unauthorized"),
}
"""What the message of such an end says of a mistake that trying again does not mend."""


def of_job(job: Job, files: JobFiles, spec: LaunchSpec | None) -> tuple[str, str, int | None]:
    """Return outcome, message and exit code of a job that ended, by what the cluster and the job itself say of it.

    `spec`: what it was launched with, where that is still known.
    """
    ends_by_itself = spec is not None and spec.kind == "job"
    if job.end is JobEnd.OUT_OF_MEMORY:
        message = _in_full(_out_of_memory(spec), job, files)
        return Outcome.OUT_OF_MEMORY, message, files.exit.code if files.exit else job.exit_code
    if job.end is JobEnd.CANCELLED and job.node is not None and files.claim is None:
        return Outcome.CANCELLED, _in_full(CANCELLED_EARLY.format(node=job.node), job, files), job.exit_code
    if job.end in _BY_CLUSTER:
        outcome, message = _BY_CLUSTER[job.end]
        return outcome, _in_full(message, job, files), files.exit.code if files.exit else job.exit_code
    if files.exit is not None:
        return of_exit(files.exit, ends_by_itself=ends_by_itself)
    if job.end is JobEnd.COMPLETED and ends_by_itself:
        return Outcome.COMPLETED, "The job completed.", job.exit_code
    if job.end is JobEnd.COMPLETED:
        message = "The job ended without leaving a record of why."
        return Outcome.EXITED, _in_full(message, job, files), job.exit_code
    code = f" with exit code {job.exit_code}" if job.exit_code is not None else ""
    how = f" with signal {job.signal}" if job.signal else code
    return Outcome.FAILED, _in_full(f"The job ended as {job.state}{how}.", job, files), job.exit_code


def _out_of_memory(spec: LaunchSpec | None) -> str:
    """Say how much it asked for, and what to raise."""
    asked = spec.resources.memory_mb if spec is not None else None
    if asked is None:
        return "The job used more memory than it was given, and was ended for it. Ask for more: resources.memory."
    return (
        f"The job used more than the {asked} MB of memory that it asked for, and was ended for it. "
        f"Raise resources.memory from {asked}M to {2 * asked}M, say."
    )


def _in_full(message: str, job: Job, files: JobFiles) -> str:
    """Add what Slurm gives as the reason of an end, what it means, and what the job said at last."""
    reason = f" Slurm says: {job.reason}." if job.reason not in ("", "NonZeroExitCode") else ""
    words = f" Its last words:\n{files.last_words}" if files.last_words and files.exit is None else ""
    return f"{message}{reason} {job.advice}".rstrip() + words


def of_exit(told: JobExit, *, ends_by_itself: bool) -> tuple[str, str, int]:
    """Return outcome, message and exit code of an engine's end as the wrapper records it."""
    if ends_by_itself and told.code == 0 and told.reason == ExitReason.ENGINE_EXITED:
        return Outcome.COMPLETED, "The job completed.", 0
    if told.reason == ExitReason.TIME_LIMIT:
        return Outcome.TIME_LIMIT, "The job came to its time limit.", told.code
    return told.reason, told.message or f"It ended with exit code {told.code}.", told.code


def is_for_slurm_to_say(told: JobExit) -> bool:
    """Whether a wrapper's record leaves open who or what ended the engine: it was told to end, or the engine failed.

    One process of an engine that the kernel kills for want of memory takes the others with it, each in its own words.
    """
    return told.reason == ExitReason.TERMINATED or (told.reason == ExitReason.ENGINE_EXITED and told.code != 0)


def is_fault(attempt: Attempt) -> bool:
    """Whether this attempt's end speaks against what was launched."""
    return attempt.outcome is not None and attempt.outcome not in NOT_A_FAULT


def may_be_its_nodes(attempt: Attempt) -> bool:
    """Whether what kept this attempt from becoming ready may be the fault of its node."""
    is_known_otherwise = is_mistake(attempt) or attempt.outcome == ExitReason.VOLUME_IN_USE
    was_let = attempt.ready_at is None and attempt.draining_since is None
    return was_let and is_fault(attempt) and not is_known_otherwise


def is_mistake(attempt: Attempt) -> bool:
    """Whether its end tells of what trying again does not mend.

    No such image, command, model, option or Python; or more memory than it asks for.
    """
    if attempt.outcome in (ExitReason.PYTHON_MISSING, ExitReason.PATH_UNSEEN, Outcome.OUT_OF_MEMORY):
        return True
    if attempt.outcome == ExitReason.ENGINE_EXITED and attempt.exit_code in _NOT_EXECUTABLE:
        return True
    pattern = _MISTAKE.get(attempt.outcome or "")
    return pattern is not None and pattern.search(attempt.message) is not None
