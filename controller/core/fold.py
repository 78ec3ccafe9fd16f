"""Fold what is seen into the record of one open attempt. Unknown is not gone: what is not seen changes nothing."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from api.contract.job.words import ExitReason, Step
from api.contract.launch import Health, LaunchSpec
from controller.core import evidence
from controller.core.attempt import Attempt, Probe, SendOutcome
from controller.core.evidence import CLOCKS_APART
from controller.core.job_files import Held, JobFiles, Revoked
from controller.core.jobs import Job, JobPhase
from controller.core.limits import Limits
from controller.core.observed import Observed
from controller.core.outcomes import Outcome, is_for_slurm_to_say, of_exit, of_job
from controller.core.plan import Action, Cancel, Revoke

_ENGINE_RUNS = (Step.STARTING, Step.LOADING, Step.SERVING)
_IMAGE_IS_THERE = (Step.SLOT, Step.VOLUME, *_ENGINE_RUNS)
REACH = (
    "See that this host knows the node by that name or address (scontrol show node), and that no firewall is between"
    " (slurm.port_range): ai-factory doctor."
)
_TIMES = ("claimed_at", "started_at", "launched_at", "serving_at", "ready_at", "unready_since", "shut_at")


@dataclass(frozen=True, slots=True, kw_only=True)
class Folded:
    """One attempt as it is now known to be, and what that asks for."""

    attempt: Attempt
    actions: tuple[Action, ...] = ()
    look_again_at: float | None = None


def close(attempt: Attempt, now: float, outcome: str, message: str, exit_code: int | None = None) -> Attempt:
    """Close an attempt; this can't be undone."""
    return replace(attempt, closed_at=now, outcome=outcome, message=message, exit_code=exit_code)


def fold(attempt: Attempt, seen: Observed, spec: LaunchSpec | None, now: float, limits: Limits) -> Folded:
    """Fold what is seen into an open attempt. `spec` is what it was launched with, where that is still known."""
    attempt = _sent(attempt, seen, now)
    files = seen.files.get(attempt.token, JobFiles())
    if attempt.open and evidence.is_claimed(files) and attempt.claimed_at is None:
        attempt = replace(attempt, claimed_at=now)
    if not attempt.open or seen.snapshot is None:
        return Folded(attempt=attempt)
    jobs = seen.snapshot.jobs.get(attempt.token, ())
    job = evidence.holder(attempt, jobs, files)
    if job is None:
        return _absent(attempt, files, seen, spec, now, limits)
    folded = _present(attempt, job, seen, spec, now, limits)
    return replace(folded, actions=_losers(jobs, files) + folded.actions)


def _losers(jobs: tuple[Job, ...], files: JobFiles) -> tuple[Action, ...]:
    """Cancel the jobs that did not get the claim, once somebody has it: until then any of them may still win."""
    if not isinstance(files.claim, Held):
        return ()
    losers = (j for j in jobs if j.job_id != files.claim.job_id and evidence.is_alive(j))
    return tuple(Cancel(token=j.token, job_id=j.job_id) for j in losers)


def _absent(
    attempt: Attempt, files: JobFiles, seen: Observed, spec: LaunchSpec | None, now: float, limits: Limits
) -> Folded:
    """Settle an open attempt whose job no snapshot shows; every step needs a snapshot that counts."""
    snapshot = seen.snapshot
    if snapshot is None or not evidence.counts(snapshot, attempt.token, seen):
        return Folded(attempt=attempt)
    if files.exit is not None:
        outcome, message, code = of_exit(files.exit, ends_by_itself=spec is not None and spec.kind == "job")
        return Folded(attempt=close(attempt, now, outcome, message, code))
    attempt = replace(_progress(attempt, files, now), absent_since=evidence.absent_since(attempt, snapshot, seen))
    if files.claim is None:
        patience = limits.doubt_grace if evidence.is_doubted(attempt, seen) else limits.absence_grace
        is_listed = any(evidence.is_alive(j) for j in snapshot.jobs.get(attempt.token, ()))
        revoke = not is_listed and evidence.missed_for(attempt, seen) >= patience
        return Folded(attempt=attempt, actions=(Revoke(token=attempt.token),) if revoke else ())
    if isinstance(files.claim, Revoked):
        return Folded(attempt=_never_started(attempt, seen, now))
    if not evidence.is_over(attempt, None, files, seen, limits):
        return Folded(attempt=_as_heard(attempt, seen, now))
    job_id = files.claim.job_id if isinstance(files.claim, Held) else attempt.job_id or ""
    unasked = f" Accounting can't be asked: {snapshot.accounting_trouble}" if snapshot.accounting_trouble else ""
    message = f"The job {job_id} left the cluster without a trace.{unasked}"
    return Folded(attempt=close(attempt, now, Outcome.VANISHED, message))


def _never_started(attempt: Attempt, seen: Observed, now: float) -> Attempt:
    """Close an attempt that no job can claim any more. What sbatch said is why, where it said anything."""
    sent = seen.sent.get(attempt.token)
    if sent is not None and sent.is_refusal:
        return close(attempt, now, Outcome.SUBMIT_REJECTED, sent.message)
    said = f" {attempt.message}" if attempt.message else ""
    return close(attempt, now, Outcome.NEVER_STARTED, f"Its job never came, or left before it ran.{said}")


def not_ahead(attempt: Attempt, now: float) -> Attempt:
    """Take times that lie before us for now: the clock they were noted by was ahead of ours, perhaps by hours."""
    times = {name: getattr(attempt, name) for name in _TIMES}
    ahead: dict[str, Any] = {name: now for name, at in times.items() if at is not None and at > now + CLOCKS_APART}
    return replace(attempt, **ahead) if ahead else attempt


def _sent(attempt: Attempt, seen: Observed, now: float) -> Attempt:
    """Take in what sbatch answered in this term. Unknown changes nothing but its words: it is settled by looking."""
    sent = seen.sent.get(attempt.token)
    if sent is None:
        return attempt
    if sent.outcome is SendOutcome.REJECTED:
        return close(attempt, now, Outcome.SUBMIT_REJECTED, sent.message)
    if sent.outcome is SendOutcome.DEFERRED:
        return close(attempt, now, Outcome.SUBMIT_DEFERRED, sent.message)
    if sent.outcome is SendOutcome.ACCEPTED and attempt.job_id is None:
        return replace(attempt, job_id=sent.job_id, submitted_at=now)
    return replace(attempt, message=sent.message) if sent.message and attempt.job_id is None else attempt


def _present(attempt: Attempt, job: Job, seen: Observed, spec: LaunchSpec | None, now: float, limits: Limits) -> Folded:
    """Fold in a job that the snapshot shows."""
    files = seen.files.get(attempt.token, JobFiles())
    attempt = _of_this_job(attempt, job)
    has_begun = evidence.has_begun(attempt, files, seen)
    attempt = replace(attempt, job_id=job.job_id, submitted_at=attempt.submitted_at or now, message="")
    ends_by_itself = spec is not None and spec.kind == "job"
    if job.phase is JobPhase.ENDED:
        return _ended(attempt, job, seen, spec, now, limits)
    if job.phase is not JobPhase.PENDING:
        attempt = _started(attempt, job, files, seen, now)
    if _has_only_to_end(job, files):
        return _torn_down(attempt, files, seen, now, limits, ends_by_itself=ends_by_itself)
    attempt = replace(attempt, absent_since=None)
    if job.phase is JobPhase.PENDING and has_begun:
        message = f"The job {job.job_id} was requeued after it had begun."
        return Folded(attempt=close(attempt, now, Outcome.REQUEUED, message))
    if files.exit is not None and files.exit.reason == ExitReason.TERMINATED:
        # Somebody ended it; who, Slurm will say when it shows the job ended.
        return Folded(attempt=_unready(attempt, now))
    if files.exit is not None:
        return Folded(attempt=close(attempt, now, *of_exit(files.exit, ends_by_itself=ends_by_itself)))
    if job.phase is JobPhase.PENDING:
        return Folded(attempt=attempt)
    if job.phase is JobPhase.COMPLETING:
        return Folded(attempt=_unready(attempt, now), look_again_at=now + limits.teardown_look)
    if job.phase is not JobPhase.RUNNING:
        return Folded(attempt=_unready(attempt, now))
    return _running(attempt, files, seen, spec, now, limits)


def _has_only_to_end(job: Job, files: JobFiles) -> bool:
    """Whether all is over but for Slurm's own word: the job is torn down, or its engine failed a moment ago."""
    if job.phase is JobPhase.COMPLETING:
        return evidence.only_tears_down((job,), files)
    failed = files.exit is not None and files.exit.reason == ExitReason.ENGINE_EXITED
    return failed and job.phase is JobPhase.RUNNING


def _torn_down(
    attempt: Attempt, files: JobFiles, seen: Observed, now: float, limits: Limits, *, ends_by_itself: bool
) -> Folded:
    """Take the job's own word for its end. Of who or what has ended it Slurm may know more, once it shows the end."""
    assert seen.snapshot is not None and files.exit is not None
    missed = replace(attempt, absent_since=evidence.absent_since(attempt, seen.snapshot, seen))
    if is_for_slurm_to_say(files.exit) and not evidence.is_torn_down(missed, seen, limits):
        return Folded(attempt=_unready(missed, now), look_again_at=now + limits.teardown_look)
    return Folded(attempt=close(missed, now, *of_exit(files.exit, ends_by_itself=ends_by_itself)))


def _of_this_job(attempt: Attempt, job: Job) -> Attempt:
    """Forget when and where another job of this attempt ran: that one did not get the claim."""
    if attempt.job_id in (None, job.job_id):
        return attempt
    return replace(attempt, started_at=None, ends_at=None, node=None, host=None)


def _ended(attempt: Attempt, job: Job, seen: Observed, spec: LaunchSpec | None, now: float, limits: Limits) -> Folded:
    """Take Slurm's word for the end of a job, unless its engine may have something else to say."""
    assert seen.snapshot is not None
    files = seen.files.get(attempt.token, JobFiles())
    known = _progress(attempt, files, now) if job.node is None else _started(attempt, job, files, seen, now)
    missed = replace(known, absent_since=evidence.absent_since(attempt, seen.snapshot, seen))
    if evidence.can_be_heard(missed) and not evidence.is_over(missed, job, files, seen, limits):
        # A probe that fails wakes us sooner.
        return Folded(attempt=_as_heard(missed, seen, now), look_again_at=now + limits.absence_grace)
    return Folded(attempt=close(known, now, *of_job(job, files, spec)))


def _as_heard(attempt: Attempt, seen: Observed, now: float) -> Attempt:
    """Route prompts to an engine whose job is missed while it answers, and to none that has fallen silent."""
    if evidence.still_answers(attempt, seen):
        return replace(attempt, unready_since=None)
    return _unready(attempt, now) if evidence.is_silent(attempt, seen) else attempt


def _started(attempt: Attempt, job: Job, files: JobFiles, seen: Observed, now: float) -> Attempt:
    """Note when and where the job runs, and how far it has come."""
    addresses = seen.snapshot.addresses if seen.snapshot else {}
    return replace(
        _progress(attempt, files, now),
        started_at=attempt.started_at or _start_of(attempt, job, now),
        ends_at=job.ends_at,
        node=job.node,
        host=(addresses.get(job.node) or job.node) if job.node else attempt.host,
    )


def _progress(attempt: Attempt, files: JobFiles, now: float) -> Attempt:
    """Note how far the job says that it has come. It may be heard of so where a listing lacks it."""
    port = files.port if files.port is not None else attempt.port
    return replace(
        attempt,
        launched_at=attempt.launched_at or (now if files.step in _IMAGE_IS_THERE else None),
        port=port,
        serving_at=attempt.serving_at or (now if files.step == Step.SERVING and port is not None else None),
    )


def _start_of(attempt: Attempt, job: Job, now: float) -> float:
    """Return when the job started, as the cluster's clock says if that can be: not before its intent, nor after now."""
    told = job.started_at
    return told if told is not None and attempt.intent_at - CLOCKS_APART <= told <= now + CLOCKS_APART else now


def _unready(attempt: Attempt, now: float) -> Attempt:
    if attempt.ready_at is None or attempt.unready_since is not None:
        return attempt
    return replace(attempt, unready_since=now)


def _running(
    attempt: Attempt, files: JobFiles, seen: Observed, spec: LaunchSpec | None, now: float, limits: Limits
) -> Folded:
    """Judge a running job by its probes and its patience."""
    health = spec.health if spec is not None else Health()
    if health is None and files.step in _ENGINE_RUNS:
        # Nothing listens: running is all there is to be.
        running = replace(attempt, ready_at=attempt.ready_at or attempt.launched_at, unready_since=None)
        return Folded(attempt=running, look_again_at=now + limits.glance)
    probe = seen.probes.get(attempt.token)
    if probe is not None and not probe.asked:
        return Folded(attempt=_unready(attempt, now))
    if probe is not None and probe.ready:
        return Folded(attempt=replace(attempt, ready_at=attempt.ready_at or now, unready_since=None))
    if evidence.is_told_to_end(attempt, seen):
        # Its door may be closed, while what is in flight goes on: it ends by itself, or Slurm ends it.
        return Folded(attempt=_unready(attempt, now), look_again_at=now + limits.glance)
    # What it was launched with may not be known any more: then it is left alone.
    patience = (health or Health()) if spec is not None else None
    if attempt.ready_at is not None:
        failures = probe.failures if probe is not None else 0
        if patience is not None and failures >= patience.retries:
            message = f"It failed {failures} health checks in a row: {probe.message if probe else ''}"
            return Folded(attempt=close(attempt, now, Outcome.UNHEALTHY, message))
        return Folded(attempt=_unready(attempt, now) if failures >= evidence.UNREADY_AFTER else attempt)
    if probe is not None and evidence.is_out_of_reach(attempt, files, seen):
        return _out_of_reach(attempt, files, probe, patience, now, limits)
    return _starting(attempt, files, patience, now, limits)


def _out_of_reach(
    attempt: Attempt, files: JobFiles, probe: Probe, health: Health | None, now: float, limits: Limits
) -> Folded:
    """What can't be reached is not waited for as long as what starts. What this host lacks itself counts no failure."""
    listens_since = (attempt.launched_at if attempt.door is not None else attempt.serving_at) or now
    until = max(listens_since, probe.unreached_since or now) + limits.unreachable_grace
    if health is None or probe.failures < health.retries or now < until:
        return _starting(attempt, files, health, now, limits)
    message = f"Its engine can't be reached from the controller's host: {probe.message}. {REACH}"
    return Folded(attempt=close(attempt, now, Outcome.UNREACHABLE, message))


def _starting(attempt: Attempt, files: JobFiles, health: Health | None, now: float, limits: Limits) -> Folded:
    """An image may take its time; a start may not take for ever."""
    began = attempt.launched_at or (attempt.started_at if files.step in (None, Step.CLAIMED) else None)
    if health is not None and began is not None and now >= began + health.startup_timeout:
        message = f"It was not ready within {health.startup_timeout:g} s. {_hint(attempt, files)}"
        return Folded(attempt=close(attempt, now, Outcome.STARTUP_TIMEOUT, message))
    return Folded(attempt=attempt, look_again_at=now + limits.glance)


def _hint(attempt: Attempt, files: JobFiles) -> str:
    if files.step is None:
        return f"Its job runs on {attempt.node} but left no sign in RUN_DIR: is it shared with that node?"
    return "Look at its logs; raise health_check.startup_timeout in the recipe if it only needs more time."
