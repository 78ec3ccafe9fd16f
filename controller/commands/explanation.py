"""An explanation as text for people. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from api.contract.endings import HANDED_OVER, what_follows
from controller.commands.explain import Explanation
from controller.core.attempt import Attempt
from controller.core.job_files import Claim, JobFiles, Revoked, Unreadable
from controller.core.jobs import Job

ALONE = "What the leader has sent in its term it alone knows: a job that is just being submitted may look absent here."


def text(told: Explanation) -> str:
    """Return the whole text."""
    wanted = told.desired
    head = f"{wanted.name} ({wanted.service_id}), generation {wanted.generation}"
    parts = [head, *_section("Wanted", _wanted(told)), *_section("Seen", _seen(told))]
    for attempt in told.seen.attempts:
        parts += _section(f"Attempt {attempt.token}", _attempt(told, attempt))
    parts += _section("Now the controller would", _plan(told))
    return "\n".join([*parts, "", ALONE if told.leads else "No controller is leading: nothing of this is done."])


def document(told: Explanation) -> Any:
    """Return it for scripts: what JSON can hold."""
    return msgspec.to_builtins(told)


def _section(title: str, lines: Iterator[str]) -> list[str]:
    return ["", f"{title}:", *(f"  {_plain(line)}" for line in lines)]


def _plain(line: str) -> str:
    """Keep what jobs and people have written from steering the terminal."""
    return "".join(c if c.isprintable() else " " for c in line)


def _wanted(told: Explanation) -> Iterator[str]:
    wanted = told.desired
    if not wanted.running:
        yield "nothing: it is stopped, or deleted"
    elif wanted.refusal is not None:
        yield f"it is refused, {wanted.refusal.reason}: {wanted.refusal.message}"
    elif wanted.spec is not None:
        model = f", model {wanted.spec.model}" if wanted.spec.model else ""
        yield f"{wanted.replicas} of {wanted.spec.recipe}{model} (launch spec {wanted.digest[:12]})"
    if wanted.paused:
        yield "its rollout is paused: what runs is left as it is; what fails is replaced as is wanted now"


def _seen(told: Explanation) -> Iterator[str]:
    yield _leader(told)
    snapshot, failure = told.seen.snapshot, told.seen.reading_failure
    if failure is not None:
        yield f"the cluster can't be read, {failure.reason}: {failure.message}"
    if snapshot is not None:
        jobs = sum(len(each) for each in snapshot.jobs.values())
        yield f"the cluster, read {_ago(told, snapshot.began_at)}: {jobs} of the jobs below"
        if snapshot.in_doubt:
            yield "most jobs left the listing at once: it is not believed"
    for stray in told.seen.strays:
        yield f"a job on the cluster of which the database knows nothing: {stray}"
    if not told.seen.status.conditions:
        yield "no controller has looked at it yet"
    for c in told.seen.status.conditions:
        yield f"{c.type} is {c.status}, {c.reason}, since {_age(told, c.since)} {c.message}".rstrip()
    if told.seen.status.observed_generation not in (0, told.desired.generation):
        yield f"this speaks of generation {told.seen.status.observed_generation}"


def _leader(told: Explanation) -> str:
    if told.leader is None:
        return "no controller has ever led"
    who = f"{told.leader.host}, epoch {told.leader.epoch}, last heartbeat {_ago(told, told.leader.renewed_at)}"
    if told.leads:
        return f"the leader: {who}"
    gone = "it gave the lease up" if told.leader.holder is None else "it does not answer"
    return f"no leader. The last one: {who}; {gone}"


def _attempt(told: Explanation, attempt: Attempt) -> Iterator[str]:
    yield f"replica {attempt.replica}, try {attempt.incarnation}, generation {attempt.generation}, job {attempt.job_id}"
    steps = ("intent", "submitted", "claimed", "started", "launched", "serving", "ready", "closed", "gone")
    times = [(step, getattr(attempt, f"{step}_at")) for step in steps]
    yield "record: " + ", ".join(f"{step} {_ago(told, at)}" for step, at in times if at is not None)
    if attempt.outcome is not None:
        yield f"it ended as {attempt.outcome}: {attempt.message}"
    if attempt.gone_at is not None:
        return
    yield from _lane(told, attempt) if attempt.open else ()
    jobs = told.seen.snapshot.jobs.get(attempt.token, ()) if told.seen.snapshot is not None else ()
    yield from (_job(told, job) for job in jobs)
    if told.seen.snapshot is not None and not jobs:
        yield "no job of it is on the cluster"
    yield _files(told, attempt.token)
    probe = told.seen.probes.get(attempt.token)
    if probe is not None:
        yield "its engine answers" if probe.ready else f"its engine: {probe.message}"
    changes = told.becomes.get(attempt.token, ())
    yield from (f"would become {change}" for change in changes)


def _lane(told: Explanation, attempt: Attempt) -> Iterator[str]:
    """Tell where it stands beside another, and what happens when its job ends."""
    beside = f", opened beside the other one: {attempt.beside}" if attempt.beside is not None else ""
    drains = f", draining for {_age(told, attempt.draining_since)}" if attempt.draining_since is not None else ""
    yield f"lane {attempt.lane}{beside}{drains}{', gets the requests' if attempt.serves else ''}"
    then = what_follows(
        told.desired.spec,
        wanted=told.desired.running,
        ends=attempt.ends_at is not None,
        draining=attempt.draining_since is not None,
    )
    due_at = told.successors_due.get(attempt.token) if then == HANDED_OVER else None
    due = f": its successor is due in {_span(due_at - told.now)}" if due_at is not None else ""
    if attempt.ends_at is not None:
        yield f"its job ends in {_span(attempt.ends_at - told.now)}; {then or 'what then is not known'}{due}"


def _job(told: Explanation, job: Job) -> str:
    reason = f" ({job.reason})" if job.reason not in ("", "None") else ""
    since = f" on {job.node} since {_age(told, job.started_at)}" if job.started_at is not None else ""
    left = f", time limit in {_span((job.ends_at or 0) - told.now)}" if job.ends_at is not None else ""
    return f"job {job.job_id}: {job.state}{reason}{since}{left}"


def _files(told: Explanation, token: str) -> str:
    files, written = told.seen.files.get(token, JobFiles()), told.files.get(token, {})
    if not written:
        return "its job has left no files"
    facts = [f"{name} {_ago(told, at)}" for name, at in written.items()]
    if files.claim is not None:
        facts.append(_claim(files.claim))
    facts += [f"step {files.step}" + (f" ({files.detail})" if files.detail else "")] if files.step else []
    facts += [f"port {files.port}"] if files.port else []
    facts += [f"ended with {files.exit.code}, {files.exit.reason}: {files.exit.message}"] if files.exit else []
    return f"files: {', '.join(facts)}"


def _claim(claim: Claim) -> str:
    if isinstance(claim, Revoked):
        return "its claim is revoked"
    if isinstance(claim, Unreadable):
        return "claimed, but the claim can't be read: which job has it is not known"
    return f"claimed by job {claim.job_id}"


def _plan(told: Explanation) -> Iterator[str]:
    plan = told.plan
    for action in plan.actions:
        yield f"{type(action).__name__.lower()} {action.token} {getattr(action, 'job_id', '')}".rstrip()
    known = {a.token for a in told.seen.attempts}
    for attempt in plan.attempts:
        yield f"{'change' if attempt.token in known else 'open'} the attempt {attempt.token}"
    for event in plan.events:
        yield f"say {event.reason}: {event.message}"
    for c in plan.status.conditions if plan.status is not None else ():
        if c not in told.seen.status.conditions:
            yield f"set {c.type} to {c.status}, {c.reason} {c.message}".rstrip()
    if plan.endpoints is not None:
        yield f"route prompts to {', '.join(f'{e.host}:{e.port}' for e in plan.endpoints if e.ready) or 'nobody'}"
    if plan.is_empty:
        yield "do nothing: it is as it should be, or waits"
    if plan.look_again_at is None:
        yield "look again when something changes"
    else:
        yield f"look again in {_span(plan.look_again_at - told.now)}, or when something changes"


def _ago(told: Explanation, at: float) -> str:
    return f"{_age(told, at)} ago"


def _age(told: Explanation, at: float | None) -> str:
    return _span(told.now - (at or told.now))


def _span(seconds: float) -> str:
    seconds = max(0.0, seconds)
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.1f} s"
