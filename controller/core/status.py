"""What the controller says about a service: its conditions, and the events that tell its history."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum

from api.contract.job.words import Step
from api.contract.status import Condition, Progress, Truth
from controller.core import evidence
from controller.core.attempt import Attempt
from controller.core.desired import Desired
from controller.core.drive import Standing
from controller.core.fold import REACH
from controller.core.job_files import JobFiles
from controller.core.jobs import Job, JobPhase
from controller.core.limits import Limits
from controller.core.observed import Observed
from controller.core.openings import Waits
from controller.core.outcomes import Outcome, is_fault
from controller.core.published import Event, Status
from controller.core.situation import Situation

Draft = tuple[str, Truth, str, str]
"""Type, status, reason, message of a condition."""

ON_LOOPBACK = (
    "Its engine listens on a port of loopback behind its door, where all users of its node reach it too. "
    "If it can listen on a Unix socket, say {socket} in the recipe."
)


ON_HOST_NETWORK = (
    "Its recipe asks for a network of its own, which {node} does not give it: {why}. So its engine has the node's, and "
    "if it listens on a port of loopback, all users of the node reach it there. See: ai-factory doctor."
)


def status(situation: Situation, standings: Sequence[Standing]) -> Status:
    """Return the status of a service after this pass; conditions keep their time while their truth stays."""
    desired, seen, target = situation.desired, situation.seen, situation.target
    ready = situation.ready_replicas
    drafts: list[Draft] = [
        _accepted(situation),
        _startable(situation),
        _observed(situation),
        _ready(desired, target, ready),
        _available(desired, ready),
        _progressing(situation, standings),
    ]
    before = {c.type: c for c in seen.status.conditions}
    return Status(
        observed_generation=desired.generation,
        replicas=desired.replicas,
        target=target,
        ready_replicas=ready,
        conditions=tuple(_condition(d, before.get(d[0]), desired.generation, situation.now) for d in drafts),
    )


def events(before: Sequence[Attempt], after: Sequence[Attempt], old: Status, new: Status) -> tuple[Event, ...]:
    """Tell what changed, in the past tense, from the records before and after."""
    known = {a.token: a for a in before}
    told = [event for attempt in after for event in _attempt_events(known.get(attempt.token), attempt)]
    for condition in new.conditions:
        event = _condition_event(_find(old, condition.type), condition)
        if event is not None:
            told.append(event)
    return tuple(told)


def _accepted(situation: Situation) -> Draft:
    desired = situation.desired
    if desired.refusal is not None:
        return "Accepted", Truth.FALSE, desired.refusal.reason, desired.refusal.message
    exposed = _exposed(situation)
    if desired.spec is not None and desired.spec.warnings:
        return "Accepted", Truth.TRUE, "ValidWithWarnings", " ".join((*desired.spec.warnings, exposed[3])).rstrip()
    return exposed


def _exposed(situation: Situation) -> Draft:
    """Say whether others of its node reach an engine beside its door."""
    desired, files = situation.desired, situation.seen.files
    if desired.spec is not None and desired.spec.is_on_loopback:
        return "Accepted", Truth.TRUE, "ValidOnLoopback", ON_LOOPBACK
    for attempt in situation.attempts:
        if attempt.token in files and files[attempt.token].network_refusal:
            message = ON_HOST_NETWORK.format(node=attempt.node, why=files[attempt.token].network_refusal)
            return "Accepted", Truth.TRUE, "ValidOnHostNetwork", message
    return "Accepted", Truth.TRUE, "Valid", ""


def _startable(situation: Situation) -> Draft:
    """Say whether a job of it can never start as things are, so that waiting for it is in vain."""
    queued = [a for a in situation.attempts if a.open and a.started_at is None and a.replica < situation.target]
    barred = next((job for a in queued if (job := _pending(a, situation.seen)) and job.bar is not None), None)
    if barred is None or barred.bar is None:
        return "Startable", Truth.TRUE, "NothingAgainst", ""
    return "Startable", Truth.FALSE, barred.bar, _why_queued(barred)


def _observed(situation: Situation) -> Draft:
    seen, limits = situation.seen, situation.limits
    failure = seen.reading_failure
    if failure is not None and (seen.snapshot is None or situation.now >= failure.since + limits.silence):
        message = f"The cluster can't be read: {failure.message} Nothing is lost; work goes on when it answers."
        return "Observed", Truth.UNKNOWN, failure.reason, message
    if seen.snapshot is None:
        return "Observed", Truth.UNKNOWN, "NotYet", ""
    outlived = next((a for a in situation.attempts if _outlives_its_job(a, seen, limits)), None)
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


def _ready(desired: Desired, target: int, ready: int) -> Draft:
    if not desired.running:
        return "Ready", Truth.FALSE, "Stopped", ""
    message = f"{ready} of {target} replicas are ready."
    if target == 0:
        return "Ready", Truth.FALSE, "ScaledToZero", message
    if ready >= target:
        return "Ready", Truth.TRUE, "AllReady", message
    return "Ready", Truth.FALSE, "NotAllReady", message


def _available(desired: Desired, ready: int) -> Draft:
    if desired.running and ready > 0:
        return "Available", Truth.TRUE, "Answering", ""
    return "Available", Truth.FALSE, "NobodyAnswers", ""


def _progressing(situation: Situation, standings: Sequence[Standing]) -> Draft:
    """Say how far it is, by the replica that is least far: it is the one that keeps the service waiting."""
    desired = situation.desired
    if not desired.running:
        if all(a.gone_at is not None for a in situation.attempts):
            return "Progressing", Truth.FALSE, Progress.STOPPED, "Nothing of it is left on the cluster."
        return "Progressing", Truth.TRUE, Progress.STOPPING, "Its jobs are being ended."
    if desired.refusal is not None:
        return "Progressing", Truth.FALSE, Progress.FAILED, desired.refusal.message
    given_up = [s.given_up for s in standings if s.given_up is not None]
    if standings and len(given_up) == len(standings) and all(word == Outcome.COMPLETED for word in given_up):
        return "Progressing", Truth.FALSE, Progress.COMPLETED, "It completed."
    failed = next((word for word in given_up if word != Outcome.COMPLETED), None)
    if failed is not None:
        remedy = "To have it tried again: ai-factory services restart, or change the service."
        return "Progressing", Truth.FALSE, Progress.FAILED, f"{failed.rstrip('.')}. {remedy}"
    if situation.ready_replicas + len(given_up) >= situation.target:
        return "Progressing", Truth.FALSE, Progress.AS_WANTED, ""
    waiting = [s for s in standings if s.given_up is None and not s.replica.is_ready]
    stage, replica = min((_stage(s, situation.seen), s.replica.number) for s in waiting)
    which = f"Replica {replica}: " if situation.target > 1 else ""
    return "Progressing", Truth.TRUE, stage.progress, f"{which}{stage.message}"


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


def _stage(standing: Standing, seen: Observed) -> Stage:
    attempt, held = standing.replica.newest, standing.hold
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
    if attempt.started_at is None:
        return _queued(attempt, seen)
    return _running(attempt, seen)


def _running(attempt: Attempt, seen: Observed) -> Stage:
    files = seen.files.get(attempt.token, JobFiles())
    suspended = _suspended(attempt, seen)
    if suspended is not None:
        message = f"The job {attempt.job_id} is suspended on {attempt.node}: its engine goes on when Slurm resumes it."
        return Stage(Rank.STARTING, Progress.STARTING, f"{message} {suspended.advice}".rstrip())
    if _is_torn_down(attempt, seen):
        return Stage(Rank.ENDING, Progress.STARTING, _teardown(attempt, attempt.unready_since))
    where = f"The job {attempt.job_id} runs on {attempt.node}"
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
    return next((j for j in _jobs(attempt, seen) if j.job_id == attempt.job_id), None)


def _teardown(attempt: Attempt, since: float | None) -> str:
    """Say that a node still works at a job's end; a time of day, which stays the same from pass to pass."""
    when = f" since {_time_of_day(since)}" if since is not None else ""
    return f"The job {attempt.job_id} is being torn down on {attempt.node}{when} (Slurm: COMPLETING)."


def _time_of_day(at: float) -> str:
    minutes, seconds = divmod(int(at) % 86_400, 60)
    return f"{minutes // 60:02}:{minutes % 60:02}:{seconds:02} UTC"


def _between(attempt: Attempt, seen: Observed) -> Stage:
    if attempt.gone_at is None and _is_torn_down(attempt, seen):
        message = f"{_teardown(attempt, attempt.closed_at)} It ended as {attempt.outcome}, and is replaced after that."
        return Stage(Rank.ENDING, Progress.SUBMITTING, message)
    if attempt.gone_at is None:
        message = f"The job {attempt.job_id or attempt.token} is being ended: {attempt.outcome}."
        return Stage(Rank.ENDING, Progress.SUBMITTING, message)
    message = f"It will be tried again after {attempt.outcome}. {attempt.message}".rstrip()
    return Stage(Rank.ENDING, Progress.BACK_OFF, message)


def _queued(attempt: Attempt, seen: Observed) -> Stage:
    job = _pending(attempt, seen)
    if job is None:
        if attempt.job_id is None:
            open_ = f" Whether Slurm has its job is not known yet: {attempt.message}" if attempt.message else ""
            return Stage(Rank.HELD, Progress.SUBMITTING, f"It is being submitted.{open_}")
        return Stage(Rank.QUEUED, Progress.QUEUED, f"The job {attempt.job_id} is queued.")
    if (
        job.is_kept_back and len(_jobs(attempt, seen)) == 1
    ):  # an earlier job of its name, for which it waits too, is listed
        message = f"The job {job.job_id} waits for another one, which makes its image."
        return Stage(Rank.QUEUED, Progress.BUILDING_IMAGE, message)
    return Stage(Rank.QUEUED if job.bar is None else Rank.BARRED, Progress.QUEUED, _why_queued(job))


def _why_queued(job: Job) -> str:
    reason = f" ({job.reason})" if job.reason else ""
    is_barred = " and can't start as things are" if job.bar is not None else ""
    return f"The job {job.job_id} is queued{is_barred}{reason}. {job.advice}".rstrip()


def _pending(attempt: Attempt, seen: Observed) -> Job | None:
    return next((j for j in _jobs(attempt, seen) if j.phase is JobPhase.PENDING), None)


def _jobs(attempt: Attempt, seen: Observed) -> tuple[Job, ...]:
    return seen.snapshot.jobs.get(attempt.token, ()) if seen.snapshot is not None else ()


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
    if new.open and new.message and (old is None or old.message != new.message):
        told.append(Event(reason="SubmitUnknown", message=f"{name}: {new.message}", warning=True))
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


def _condition_event(old: Condition | None, new: Condition) -> Event | None:
    """Tell of refusals, of giving up and of silence; what attempts tell themselves is not told twice."""
    if old is not None and (old.status, old.reason) == (new.status, new.reason):
        return None
    if new.type == "Observed" and new.reason != "NotYet":
        if new.status is Truth.TRUE and (old is None or old.reason == "NotYet"):
            return None
        return Event(
            reason=new.reason, message=new.message or "The cluster answers.", warning=new.status is not Truth.TRUE
        )
    if new.type in ("Accepted", "Startable") and (new.status is Truth.FALSE or new.reason == "ValidWithWarnings"):
        return Event(reason=new.reason, message=new.message, warning=True)
    if new.type == "Progressing" and new.reason in _TOLD:
        return Event(reason=new.reason, message=new.message, warning=new.reason in _WARNINGS)
    return None
