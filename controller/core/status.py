"""What the controller says about a service: its conditions."""

from __future__ import annotations

from collections.abc import Sequence

from api.contract.status import Condition, Continuity, Progress, Truth, time_of_day
from controller.core import evidence
from controller.core.attempt import Attempt
from controller.core.bad_nodes import BadNode
from controller.core.continuity import next_hand_over, trouble
from controller.core.desired import Desired
from controller.core.drive import Standing
from controller.core.limits import Limits
from controller.core.observed import Observed
from controller.core.outcomes import Outcome
from controller.core.published import Status
from controller.core.rolling_out import rolling_out
from controller.core.situation import Replica, Situation
from controller.core.stages import stage_of, why_queued

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
        _continuous(situation, standings),
    ]
    before = {c.type: c for c in seen.status.conditions}
    return Status(
        observed_generation=desired.generation,
        replicas=desired.replicas,
        target=target,
        ready_replicas=ready,
        conditions=tuple(_condition(d, before.get(d[0]), desired.generation, situation.now) for d in drafts),
    )


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
    queued = [a for a in queued if not _serves_what_is_wanted(situation.replica(a.replica), situation)]
    barred = next((job for a in queued if (job := evidence.pending(a, situation.seen)) and job.bar is not None), None)
    if barred is not None and barred.bar is not None:
        return "Startable", Truth.FALSE, barred.bar, why_queued(barred)
    is_to_start = bool(queued) or (situation.ready_replicas < situation.target and situation.desired.running)
    if situation.seen.bad_nodes and is_to_start:
        left_out = "; ".join(map(_left_out, situation.seen.bad_nodes))
        return "Startable", Truth.TRUE, "NodesExcluded", f"Its next jobs are kept off {left_out}."
    return "Startable", Truth.TRUE, "NothingAgainst", ""


def _left_out(node: BadNode) -> str:
    return f"{node.name} until {time_of_day(node.until)} ({node.faults} failed there in a row: {node.outcome})"


def _serves_what_is_wanted(replica: Replica, situation: Situation) -> bool:
    return any(a.serves and a.digest == situation.desired.digest for a in replica.attempts)


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
    rolling = rolling_out(situation, standings)
    if rolling is not None and rolling.has_failed:
        return "Progressing", Truth.FALSE, Progress.ROLLOUT_FAILED, rolling.message
    paused = _paused(situation)
    if situation.ready_replicas + len(given_up) >= situation.target:
        if paused:
            return "Progressing", Truth.TRUE, Progress.ROLLOUT_PAUSED, paused
        if rolling is not None:
            return "Progressing", Truth.TRUE, Progress.ROLLING_OUT, rolling.message
        return "Progressing", Truth.FALSE, Progress.AS_WANTED, ""
    waiting = [s for s in standings if s.given_up is None and not s.replica.is_ready]
    stage, replica = min((stage_of(s, situation), s.replica.number) for s in waiting)
    which = f"Replica {replica}: " if situation.target > 1 else ""
    if paused:
        return "Progressing", Truth.TRUE, Progress.ROLLOUT_PAUSED, f"{paused} {which}{stage.message}"
    room = f" {rolling.room}" if rolling is not None and rolling.room else ""
    return "Progressing", Truth.TRUE, stage.progress, f"{which}{stage.message}{room}"


def _continuous(situation: Situation, standings: Sequence[Standing]) -> Draft:
    """Say whether it goes on answering when its jobs come to their time limits."""
    found = trouble(situation, standings)
    if found is None:
        return "Continuous", Truth.TRUE, Continuity.NOTHING_AGAINST, next_hand_over(situation)
    return "Continuous", Truth.FALSE, found.reason, found.message


def _paused(situation: Situation) -> str:
    """Say how many replicas a paused change has not reached; empty if it holds nothing back."""
    desired = situation.desired
    old = {a.replica for a in situation.attempts if a.open and a.digest != desired.digest}
    if not situation.is_paused or not old:
        return ""
    many = f"{len(old)} of {situation.target} replicas run as before generation {desired.generation}"
    return f"Its rollout is paused: {many}. To go on: ai-factory services rollout resume {desired.name}."


def _condition(draft: Draft, before: Condition | None, generation: int, now: float) -> Condition:
    kind, truth, reason, message = draft
    since = before.since if before is not None and before.status is truth else now
    return Condition(type=kind, status=truth, reason=reason, message=message, since=since, generation=generation)
