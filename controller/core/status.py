"""What the controller says about a service: its conditions, and the events that tell its history."""

from __future__ import annotations

from collections.abc import Sequence

from api.contract.status import Condition, Progress, Truth
from controller.core import evidence
from controller.core.drive import Slot
from controller.core.model import (
    Attempt,
    Desired,
    Event,
    Job,
    JobFiles,
    JobPhase,
    Limits,
    Observed,
    Status,
)
from controller.core.outcomes import Outcome, is_fault

Draft = tuple[str, Truth, str, str]
"""Type, status, reason, message of a condition."""


def status(
    desired: Desired,
    attempts: Sequence[Attempt],
    slots: Sequence[Slot],
    seen: Observed,
    now: float,
    limits: Limits,
) -> Status:
    """Return the status of a service after this pass; conditions keep their time while their truth stays."""
    ready = sum(a.ready for a in attempts if a.replica < desired.replicas)
    drafts: list[Draft] = [
        _accepted(desired),
        _observed(attempts, seen, now, limits),
        _ready(desired, ready),
        _available(desired, ready),
        _progressing(desired, attempts, slots, seen, ready),
    ]
    before = {c.type: c for c in seen.status.conditions}
    return Status(
        observed_generation=desired.generation,
        replicas=desired.replicas,
        ready_replicas=ready,
        conditions=tuple(_condition(draft, before.get(draft[0]), desired.generation, now) for draft in drafts),
    )


def events(before: Sequence[Attempt], after: Sequence[Attempt], old: Status, new: Status) -> tuple[Event, ...]:
    """Tell what changed, in the past tense, from the records before and after."""
    known = {a.token: a for a in before}
    told = [event for attempt in after for event in _attempt_events(known.get(attempt.token), attempt)]
    for kind in ("Accepted", "Progressing", "Observed"):
        event = _condition_event(_find(old, kind), _find(new, kind))
        if event is not None:
            told.append(event)
    return tuple(told)


def _accepted(desired: Desired) -> Draft:
    if desired.refusal is not None:
        return "Accepted", Truth.FALSE, desired.refusal.reason, desired.refusal.message
    return "Accepted", Truth.TRUE, "Valid", ""


def _observed(attempts: Sequence[Attempt], seen: Observed, now: float, limits: Limits) -> Draft:
    failure = seen.reading_failure
    if failure is not None and (seen.snapshot is None or now >= failure.since + limits.silence):
        message = f"The cluster can't be read: {failure.message} Nothing is lost; work goes on when it answers."
        return "Observed", Truth.UNKNOWN, failure.reason, message
    if seen.snapshot is None:
        return "Observed", Truth.UNKNOWN, "NotYet", ""
    outlived = next((a for a in attempts if _outlives_its_job(a, seen, limits)), None)
    if outlived is not None:
        message = (
            f"Slurm lists the job {outlived.job_id} of replica {outlived.replica} no more, but its engine still answers"
            f" on {outlived.node}. It is replaced when it has ended: end its processes there, or ask the site to."
        )
        return "Observed", Truth.UNKNOWN, "EngineOutlivesJob", message
    if any(a.token in seen.snapshot.in_doubt for a in seen.attempts):
        message = "Most jobs left the cluster's listing at once: it is not believed until another source says so."
        return "Observed", Truth.UNKNOWN, "MassVanishing", message
    return "Observed", Truth.TRUE, "Reading", ""


def _outlives_its_job(attempt: Attempt, seen: Observed, limits: Limits) -> bool:
    """Whether its engine answers although Slurm has not had its job for longer than a reading may be wrong."""
    if attempt.gone_at is not None or not evidence.still_answers(attempt, seen):
        return False
    return evidence.missed_for(attempt, seen) >= limits.absence_grace


def _ready(desired: Desired, ready: int) -> Draft:
    if not desired.running:
        return "Ready", Truth.FALSE, "Stopped", ""
    message = f"{ready} of {desired.replicas} replicas are ready."
    if desired.replicas == 0:
        return "Ready", Truth.FALSE, "ScaledToZero", message
    return (
        ("Ready", Truth.TRUE, "AllReady", message)
        if ready >= desired.replicas
        else ("Ready", Truth.FALSE, "NotAllReady", message)
    )


def _available(desired: Desired, ready: int) -> Draft:
    if desired.running and ready > 0:
        return "Available", Truth.TRUE, "Answering", ""
    return "Available", Truth.FALSE, "NobodyAnswers", ""


def _progressing(
    desired: Desired, attempts: Sequence[Attempt], slots: Sequence[Slot], seen: Observed, ready: int
) -> Draft:
    """Say how far it is, by the slot that is furthest of those that are not ready yet."""
    if not desired.running:
        if all(a.gone_at is not None for a in attempts):
            return "Progressing", Truth.FALSE, Progress.STOPPED, "Nothing of it is left on the cluster."
        return "Progressing", Truth.TRUE, Progress.STOPPING, "Its jobs are being ended."
    if desired.refusal is not None:
        return "Progressing", Truth.FALSE, Progress.FAILED, desired.refusal.message
    given_up = [s.given_up for s in slots if s.given_up is not None]
    if slots and len(given_up) == len(slots) and all(word == Outcome.COMPLETED for word in given_up):
        return "Progressing", Truth.FALSE, Progress.COMPLETED, "It completed."
    failed = next((word for word in given_up if word != Outcome.COMPLETED), None)
    if failed is not None:
        remedy = "Change the service to have it tried again."
        return "Progressing", Truth.FALSE, Progress.FAILED, f"{failed} {remedy}"
    if ready + len(given_up) >= desired.replicas:
        return "Progressing", Truth.FALSE, Progress.AS_WANTED, ""
    stages = [_stage(s, seen) for s in slots if s.given_up is None and (s.newest is None or not s.newest.ready)]
    _, progress, message = max(stages, default=(0, Progress.SUBMITTING, ""))
    return "Progressing", Truth.TRUE, progress, message


def _stage(slot: Slot, seen: Observed) -> tuple[int, Progress, str]:
    """Return how far a slot is (more is further), the word for it and what there is to say."""
    attempt = slot.newest
    stray = next((s for s in seen.strays if s.replica == slot.replica), None)
    if stray is not None and (attempt is None or not attempt.open):
        message = f"The cluster runs {stray} for it, of which the database knows nothing more: it waits for its end."
        return 1, Progress.SUBMITTING, message
    if slot.over_quota is not None:
        return 0, Progress.QUOTA_EXCEEDED, slot.over_quota.message
    if slot.wants_turn:
        return 0, Progress.SUBMITTING, "It waits for its turn to be submitted: many are at once."
    if attempt is None:
        return 0, Progress.SUBMITTING, "It is about to be submitted."
    if not attempt.open:
        return _between(attempt)
    files = seen.files.get(attempt.token, JobFiles())
    if attempt.started_at is None:
        return _queued(attempt, seen)
    suspended = _suspended(attempt, seen)
    if suspended is not None:
        message = f"The job {attempt.job_id} is suspended on {attempt.node}: its engine goes on when Slurm resumes it."
        return 4, Progress.STARTING, f"{message} {suspended.advice}".rstrip()
    where = f"The job {attempt.job_id} runs on {attempt.node}"
    if files.step == "image":
        detail = f": {files.detail}" if files.detail else ""
        return 3, Progress.BUILDING_IMAGE, f"{where}; its image is being made{detail}."
    if attempt.ready_at is not None:
        return 5, Progress.STARTING, f"{where}, but its engine does not answer."
    if files.detail:
        return 4, Progress.STARTING, f"{files.detail} (job {attempt.job_id} on {attempt.node})."
    return 4, Progress.STARTING, f"{where}; its engine is starting."


def _suspended(attempt: Attempt, seen: Observed) -> Job | None:
    jobs = seen.snapshot.jobs.get(attempt.token, ()) if seen.snapshot is not None else ()
    return next((j for j in jobs if j.job_id == attempt.job_id and j.phase is JobPhase.SUSPENDED), None)


def _between(attempt: Attempt) -> tuple[int, Progress, str]:
    if attempt.gone_at is None:
        return 1, Progress.SUBMITTING, f"The job {attempt.job_id or attempt.token} is being ended: {attempt.outcome}."
    fault = f" {attempt.message}" if is_fault(attempt) or attempt.outcome == Outcome.SUBMIT_DEFERRED else ""
    return 1, Progress.BACK_OFF, f"It will be tried again after {attempt.outcome}.{fault}"


def _queued(attempt: Attempt, seen: Observed) -> tuple[int, Progress, str]:
    jobs = seen.snapshot.jobs.get(attempt.token, ()) if seen.snapshot is not None else ()
    job = next((j for j in jobs if j.phase is JobPhase.PENDING), None)
    if job is None:
        if attempt.job_id is None:
            return 0, Progress.SUBMITTING, "It is being submitted."
        return 2, Progress.QUEUED, f"The job {attempt.job_id} is queued."
    if job.is_kept_back and len(jobs) == 1:  # an earlier job of its name, for which it waits too, is listed
        return 2, Progress.BUILDING_IMAGE, f"The job {job.job_id} waits for another one, which makes its image."
    reason = f" ({job.reason})" if job.reason else ""
    return 2, Progress.QUEUED, f"The job {job.job_id} is queued{reason}. {job.advice}".rstrip()


def _condition(draft: Draft, before: Condition | None, generation: int, now: float) -> Condition:
    kind, truth, reason, message = draft
    since = before.since if before is not None and before.status is truth else now
    return Condition(type=kind, status=truth, reason=reason, message=message, since=since, generation=generation)


def _find(status_: Status, kind: str) -> Condition | None:
    return next((c for c in status_.conditions if c.type == kind), None)


def _attempt_events(old: Attempt | None, new: Attempt) -> list[Event]:
    """Tell the steps of one attempt that were taken since."""
    told: list[Event] = []
    name = f"Replica {new.replica}"
    if old is None:
        told.append(Event(reason="Submitting", message=f"{name}: attempt {new.incarnation} was opened."))
    if new.job_id is not None and (old is None or old.job_id != new.job_id):
        told.append(Event(reason="Submitted", message=f"{name}: it is job {new.job_id}."))
    if new.started_at is not None and (old is None or old.started_at is None):
        told.append(Event(reason="Started", message=f"{name}: job {new.job_id} started on {new.node}."))
    if new.ready_at is not None and (old is None or old.ready_at is None):
        seconds = max(new.ready_at - (new.started_at or new.intent_at), 0.0)
        told.append(Event(reason="Ready", message=f"{name}: ready {seconds:.0f} s after its job started."))
    if old is not None and old.open and new.unready_since is not None and old.unready_since is None:
        told.append(Event(reason="Unready", message=f"{name}: stopped answering.", warning=True))
    if not new.open and (old is None or old.open):
        told.append(
            Event(
                reason=new.outcome or "Closed",
                message=f"{name}: attempt {new.incarnation} ended. {new.message}",
                warning=is_fault(new),
            )
        )
    return told


_WARNINGS = (Progress.FAILED, Progress.QUOTA_EXCEEDED)
_TOLD = (*_WARNINGS, Progress.COMPLETED, Progress.STOPPED)


def _condition_event(old: Condition | None, new: Condition | None) -> Event | None:
    """Tell of refusals, of giving up and of silence; what attempts tell themselves is not told twice."""
    if new is None or (old is not None and (old.status, old.reason) == (new.status, new.reason)):
        return None
    if new.type == "Observed" and new.reason != "NotYet":
        if new.status is Truth.TRUE and (old is None or old.reason == "NotYet"):
            return None
        return Event(
            reason=new.reason, message=new.message or "The cluster answers.", warning=new.status is not Truth.TRUE
        )
    if new.type == "Accepted" and new.status is Truth.FALSE:
        return Event(reason=new.reason, message=new.message, warning=True)
    if new.type == "Progressing" and new.reason in _TOLD:
        return Event(reason=new.reason, message=new.message, warning=new.reason in _WARNINGS)
    return None
