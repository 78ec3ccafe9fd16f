"""Clear away what closed attempts have left on the cluster, until nothing of them is there nor can come."""

from __future__ import annotations

from dataclasses import replace

from controller.core import evidence
from controller.core.attempt import Attempt, SendOutcome
from controller.core.fold import Folded
from controller.core.job_files import JobFiles, Revoked
from controller.core.jobs import JobPhase
from controller.core.limits import Limits
from controller.core.observed import Observed
from controller.core.plan import Cancel, Revoke


def evict(attempt: Attempt, seen: Observed, now: float, limits: Limits) -> Folded:
    """Cancel the jobs of a closed attempt, and say when it is gone.

    Only what is durably closed comes here: an attempt closed in this very pass waits for the next one.
    """
    snapshot = seen.snapshot
    if snapshot is None:
        return Folded(attempt=attempt)
    alive = [j for j in snapshot.jobs.get(attempt.token, ()) if j.phase is not JobPhase.ENDED]
    if alive:
        files = seen.files.get(attempt.token, JobFiles())
        if evidence.only_tears_down(snapshot.jobs[attempt.token], files):
            attempt = replace(attempt, absent_since=evidence.absent_since(attempt, snapshot, seen))
            over = evidence.is_torn_down(attempt, seen, limits)
            if over:
                return Folded(attempt=replace(attempt, gone_at=now))
            return Folded(attempt=attempt, look_again_at=now + limits.teardown_look)
        last = seen.cancelled.get(attempt.token)
        due = now if last is None else last + limits.cancel_again
        cancels = tuple(
            Cancel(token=attempt.token, job_id=j.job_id) for j in alive if j.phase is not JobPhase.COMPLETING
        )
        return Folded(
            attempt=replace(attempt, absent_since=None),
            actions=cancels if now >= due else (),
            look_again_at=None if cancels else now + limits.teardown_look,
        )
    return _settle(attempt, seen, now, limits)


def _settle(attempt: Attempt, seen: Observed, now: float, limits: Limits) -> Folded:
    """No job of it is seen alive: make sure that none can come, then call it gone once its engine is too."""
    snapshot, files = seen.snapshot, seen.files.get(attempt.token, JobFiles())
    if snapshot is None or not evidence.counts(snapshot, attempt.token, seen):
        return Folded(attempt=attempt)
    gone = Folded(attempt=replace(attempt, gone_at=now))
    if _never_created(attempt, seen):
        return gone
    if files.claim is None:
        return Folded(attempt=attempt, actions=(Revoke(token=attempt.token),))
    attempt = replace(attempt, absent_since=evidence.absent_since(attempt, snapshot, seen))
    if isinstance(files.claim, Revoked):
        return Folded(attempt=attempt) if evidence.answers_as_itself(attempt, seen) else gone
    job = evidence.claimant(files, snapshot.jobs.get(attempt.token, ()))
    return gone if evidence.is_over(attempt, job, files, seen, limits) else Folded(attempt=attempt)


def _never_created(attempt: Attempt, seen: Observed) -> bool:
    """Whether Slurm itself said that it made no job of it."""
    sent = seen.sent.get(attempt.token)
    return sent is not None and sent.outcome in (SendOutcome.REJECTED, SendOutcome.DEFERRED)
