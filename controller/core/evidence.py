"""What a snapshot, a claim and a probe prove about one attempt. Unknown is not gone: silence alone proves nothing."""

from __future__ import annotations

from api.contract.job.words import Step
from controller.core.attempt import Attempt
from controller.core.job_files import Held, JobFiles, Revoked
from controller.core.jobs import Job, JobEnd, JobPhase, Snapshot
from controller.core.limits import Limits
from controller.core.observed import Observed

CLOCKS_APART = 5.0
"""Seconds by which the clocks of two hosts may differ without being called wrong."""
UNREADY_AFTER = 2
"""Failed probes in a row after which a ready replica gets no more prompts."""


def holder(attempt: Attempt, jobs: tuple[Job, ...], files: JobFiles) -> Job | None:
    """Return the job that is the attempt's: whoever holds the claim, or was seen to run; else the lowest id."""
    if isinstance(files.claim, Held | Revoked):
        return claimant(files, jobs)
    if attempt.started_at is not None and attempt.job_id is not None:
        return _of_id(attempt.job_id, jobs)
    return min((j for j in jobs if is_alive(j)), key=_id, default=min(jobs, key=_id, default=None))


def claimant(files: JobFiles, jobs: tuple[Job, ...]) -> Job | None:
    """Return the job that is known to have the claim, if it is among these."""
    return _of_id(files.claim.job_id, jobs) if isinstance(files.claim, Held) else None


def jobs_of(attempt: Attempt, seen: Observed) -> tuple[Job, ...]:
    """Return the jobs that the snapshot shows under an attempt's token."""
    return seen.snapshot.jobs.get(attempt.token, ()) if seen.snapshot is not None else ()


def pending(attempt: Attempt, seen: Observed) -> Job | None:
    """Return the job of an attempt that is queued."""
    return next((j for j in jobs_of(attempt, seen) if j.phase is JobPhase.PENDING), None)


def is_alive(job: Job) -> bool:
    """Whether a job is queued or on a node."""
    return job.phase is not JobPhase.ENDED


def counts(snapshot: Snapshot, token: str, seen: Observed) -> bool:
    """Whether this snapshot's silence about a token says anything: it began after our last sbatch for it returned."""
    sent = seen.sent.get(token)
    return sent is None or snapshot.sequence > sent.sequence


def absent_since(attempt: Attempt, snapshot: Snapshot, seen: Observed) -> float:
    """Return since when snapshots lack its job. Those of this term alone count: others went by another clock."""
    noted = attempt.absent_since
    if noted is None or not seen.term_began_at <= noted <= snapshot.began_at:
        return snapshot.began_at
    return noted


def is_claimed(files: JobFiles) -> bool:
    """Whether a job is known to have the claim."""
    return isinstance(files.claim, Held)


def has_begun(attempt: Attempt, files: JobFiles, seen: Observed) -> bool:
    """Whether its job was seen to run, or to claim, before the snapshot that shows it pending: then it was requeued."""
    if attempt.started_at is not None:
        return True
    if not is_claimed(files) or attempt.claimed_at is None or seen.snapshot is None:
        return False
    return seen.snapshot.began_at > attempt.claimed_at + CLOCKS_APART


def is_told_to_end(attempt: Attempt, seen: Observed) -> bool:
    """Whether its job says that somebody told it to end. It goes on for as long as it is let, and is not judged."""
    return seen.files.get(attempt.token, JobFiles()).told_to_end_at is not None


def says_nothing_of_its_end(attempt: Attempt, seen: Observed) -> bool:
    """Whether its job's report is seen, and nobody has told it to end: a report that is not seen proves nothing."""
    files = seen.files.get(attempt.token, JobFiles())
    return files.step is not None and files.told_to_end_at is None


def job_of(attempt: Attempt, seen: Observed) -> Job | None:
    """Return the job of an attempt as the snapshot shows it."""
    return _of_id(attempt.job_id, jobs_of(attempt, seen)) if attempt.job_id is not None else None


def is_over(attempt: Attempt, job: Job | None, files: JobFiles, seen: Observed, limits: Limits) -> bool:
    """Whether an attempt has ended whose job no snapshot shows alive, though it was there, or may have been.

    `job`: how the snapshot shows its end, if it does. Nothing is over while its own engine answers, whoever says so.
    What the job itself wrote is believed next, then two sources that agree, at last time alone.
    """
    if answers_as_itself(attempt, seen):
        return False
    if files.exit is not None:
        return True
    waited = missed_for(attempt, seen)
    if still_answers(attempt, seen):  # its own, or another's that has its port by now: only time can tell
        return waited >= limits.doubt_grace
    # The one end that slurmctld may tell of by itself: after a crash it may take for queued what runs (measured).
    told_by_its_node = job is not None and job.end is not JobEnd.CANCELLED
    if told_by_its_node and (is_silent(attempt, seen) or not can_be_heard(attempt)):
        return True
    if attempt.ready_at is not None and is_silent(attempt, seen):
        return job is not None or waited >= limits.absence_grace
    if shows_no_life(files, limits):  # whose engine may live on: it is asked first
        is_known = job is not None and (is_asked(attempt, seen) or not can_be_heard(attempt))
        return is_known or waited >= limits.absence_grace
    return waited >= (limits.doubt_grace if is_doubted(attempt, seen) else limits.accounting_grace)


def only_tears_down(jobs: tuple[Job, ...], files: JobFiles) -> bool:
    """Whether all that is left of an attempt is a job that its node tears down, and that has recorded its engine's end.

    Who holds the claim writes its record last, when all that it started has ended. What follows are the site's epilog
    and Slurm's own work, which may take minutes, and start no engine: the next attempt's job has another name, so that
    the singleton does not hold it back.
    """
    alive = [job for job in jobs if is_alive(job)]
    return (
        files.exit is not None
        and isinstance(files.claim, Held)
        and all(job.phase is JobPhase.COMPLETING and job.job_id == files.claim.job_id for job in alive)
    )


def is_torn_down(attempt: Attempt, seen: Observed, limits: Limits) -> bool:
    """Whether a job of which only that is left has been waited for long enough; its engine must not answer."""
    return missed_for(attempt, seen) >= limits.teardown_grace and not answers_as_itself(attempt, seen)


def missed_for(attempt: Attempt, seen: Observed) -> float:
    """Return for how many seconds no snapshot that counts has shown its job at work; by the snapshots' own time."""
    if seen.snapshot is None or attempt.absent_since is None:
        return 0.0
    return seen.snapshot.began_at - attempt.absent_since


def is_doubted(attempt: Attempt, seen: Observed) -> bool:
    """Whether its absence is part of a mass vanishing. While there is one, no absence of a closed attempt counts."""
    if seen.snapshot is None:
        return False
    return attempt.token in seen.snapshot.in_doubt or (not attempt.open and bool(seen.snapshot.in_doubt))


def still_answers(attempt: Attempt, seen: Observed) -> bool:
    """Whether the engine has answered since its job was missed: it outlived the job, or the reading is wrong."""
    return is_asked(attempt, seen) and seen.probes[attempt.token].ready


def answers_as_itself(attempt: Attempt, seen: Observed) -> bool:
    """Whether what has answered since its job was missed has proved to be its own engine."""
    return still_answers(attempt, seen) and seen.probes[attempt.token].is_own


def is_silent(attempt: Attempt, seen: Observed) -> bool:
    """Whether the engine has failed its probes since its job was missed, and more than once."""
    return is_asked(attempt, seen) and seen.probes[attempt.token].failures >= UNREADY_AFTER


def is_asked(attempt: Attempt, seen: Observed) -> bool:
    """Whether the engine has been asked since its job was missed."""
    probe = seen.probes.get(attempt.token)
    return probe is not None and attempt.absent_since is not None and probe.at > attempt.absent_since


def shows_no_life(files: JobFiles, limits: Limits) -> bool:
    """Whether the wrapper gives signs of life, and has not for so long that it must have ended or been stopped."""
    return files.quiet_for is not None and files.quiet_for >= limits.sign_grace


def is_out_of_reach(attempt: Attempt, files: JobFiles, seen: Observed) -> bool:
    """Whether something listens, as its job says, and this host gets no connection to it, nor ever got an answer.

    A door listens from before its engine's start on.
    """
    probe = seen.probes.get(attempt.token)
    if probe is None or probe.unreached_since is None or attempt.ready_at is not None:
        return False
    return files.step == Step.SERVING or (attempt.door is not None and files.step in (Step.STARTING, Step.LOADING))


def can_be_heard(attempt: Attempt) -> bool:
    """Whether a probe may tell that its engine lives: it has come to listen, and it is known where."""
    return attempt.serving_at is not None and attempt.port is not None and attempt.host is not None


def _of_id(job_id: int, jobs: tuple[Job, ...]) -> Job | None:
    return next((j for j in jobs if j.job_id == job_id), None)


def _id(job: Job) -> int:
    return job.job_id
