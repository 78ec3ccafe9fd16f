"""Short ways to say what is wanted and what is seen. Everything has a default; a test names what it is about."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from api.contract.job.token import Token
from api.contract.launch import Health, LaunchSpec, Resources
from api.contract.status import Condition, find
from controller.core.attempt import Attempt, Probe, SendOutcome, Sent
from controller.core.decide import decide
from controller.core.desired import Desired, Refusal
from controller.core.job_files import Held, JobExit, JobFiles, Revoked
from controller.core.jobs import Job, JobPhase, ReadingFailure, Snapshot
from controller.core.limits import Limits
from controller.core.observed import Observed
from controller.core.plan import Action, Plan
from controller.core.published import Endpoint, Status
from controller.slurm.reasons import KEPT_BACK
from controller.slurm.states import end_of

NOW = 100_000.0
JOB = 501
LIMITS = Limits()
DIGEST = "d1"
SERVICE = "s4"
INSTALLATION = "i9"
HEALTH = Health(retries=3, startup_timeout=600.0)
PENDING, RUNNING, SUSPENDED = JobPhase.PENDING, JobPhase.RUNNING, JobPhase.SUSPENDED
COMPLETING, ENDED = JobPhase.COMPLETING, JobPhase.ENDED


def spec(**changes: Any) -> LaunchSpec:
    values: dict[str, Any] = {
        "recipe": "inference/vllm",
        "kind": "service",
        "engine": "vllm",
        "model": "m",
        "image": None,
        "command": ("vllm",),
        "resources": Resources(),
        "health": HEALTH,
    }
    return LaunchSpec(**{**values, **changes})


JOB_SPEC = spec(kind="job", engine="generic", model=None, health=None)
"""Something that ends by itself."""


def desired(**changes: Any) -> Desired:
    values: dict[str, Any] = {
        "installation": INSTALLATION,
        "service_id": SERVICE,
        "name": "chat",
        "generation": 1,
        "running": True,
        "replicas": 1,
        "spec": spec(),
        "digest": DIGEST,
    }
    return Desired(**{**values, **changes})


def refused(**changes: Any) -> Desired:
    refusal = Refusal(reason="BadConfig", message="resources.memory: must be an amount of memory.")
    return desired(**{"spec": None, "digest": "", "refusal": refusal, "generation": 2, **changes})


def token(replica: int = 0, incarnation: int = 1) -> str:
    return str(Token(INSTALLATION, SERVICE, replica, incarnation))


def intended(replica: int = 0, incarnation: int = 1, **changes: Any) -> Attempt:
    """An attempt of which only the intent is known."""
    values: dict[str, Any] = {
        "token": token(replica, incarnation),
        "service_id": SERVICE,
        "replica": replica,
        "incarnation": incarnation,
        "generation": 1,
        "digest": DIGEST,
        "intent_at": NOW - 100,
    }
    return Attempt(**{**values, **changes})


def queued(replica: int = 0, incarnation: int = 1, **changes: Any) -> Attempt:
    values = {"job_id": JOB + replica, "submitted_at": NOW - 99}
    return intended(replica, incarnation, **{**values, **changes})


def started(replica: int = 0, incarnation: int = 1, **changes: Any) -> Attempt:
    values = {"claimed_at": NOW - 90, "started_at": NOW - 91, "node": "n1", "host": "10.0.0.1", "launched_at": NOW - 89}
    return queued(replica, incarnation, **{**values, **changes})


def ready(replica: int = 0, incarnation: int = 1, **changes: Any) -> Attempt:
    values = {"port": 8000, "serving_at": NOW - 80, "ready_at": NOW - 70}
    return started(replica, incarnation, **{**values, **changes})


def closed(attempt: Attempt, outcome: str = "Cancelled", **changes: Any) -> Attempt:
    return replace(attempt, **{"closed_at": NOW - 50, "outcome": outcome, "message": "It ended.", **changes})


def gone(attempt: Attempt, outcome: str = "Cancelled", **changes: Any) -> Attempt:
    return closed(attempt, outcome, **{"gone_at": NOW - 40, **changes})


def job(attempt: Attempt, phase: JobPhase, **changes: Any) -> Job:
    """A job under the token of that attempt, under its id if it has one."""
    values: dict[str, Any] = {"job_id": attempt.job_id or JOB, "token": attempt.token, "phase": phase}
    if phase in (RUNNING, SUSPENDED, COMPLETING):
        values |= {"node": "n1", "started_at": NOW - 91, "ends_at": attempt.ends_at}
    values["state"] = {ENDED: "FAILED"}.get(phase, phase.name)
    values |= changes
    return Job(**{"end": end_of(values["state"]), "is_kept_back": values.get("reason") == KEPT_BACK, **values})


def snapshot(*jobs: Job, **changes: Any) -> Snapshot:
    by_token: dict[str, tuple[Job, ...]] = {}
    for each in jobs:
        by_token[each.token] = (*by_token.get(each.token, ()), each)
    return Snapshot(
        **{"sequence": 10, "began_at": NOW - 1, "jobs": by_token, "addresses": {"n1": "10.0.0.1"}, **changes}
    )


def claim(attempt: Attempt, **changes: Any) -> dict[str, JobFiles]:
    """The files of an attempt whose own job has claimed it."""
    values: dict[str, Any] = {"claim": Held(job_id=attempt.job_id), "step": "claimed"}
    return {attempt.token: JobFiles(**{**values, **changes})}


def exited(attempt: Attempt, code: int = 1, reason: str = "EngineExited", message: str = "") -> dict[str, JobFiles]:
    return claim(attempt, exit=JobExit(code=code, reason=reason, message=message))


def revoked(attempt: Attempt) -> dict[str, JobFiles]:
    return {attempt.token: JobFiles(claim=Revoked())}


def answers(attempt: Attempt, at: float = NOW - 0.5) -> dict[str, Probe]:
    return {attempt.token: Probe(at=at, ready=True, failures=0, is_own=True)}


def fails(attempt: Attempt, failures: int = 2, at: float = NOW - 0.5) -> dict[str, Probe]:
    return {attempt.token: Probe(at=at, ready=False, failures=failures, message="refused")}


def sent(attempt: Attempt, outcome: SendOutcome, sequence: int = 5, **changes: Any) -> dict[str, Sent]:
    return {attempt.token: Sent(outcome=outcome, sequence=sequence, **changes)}


SILENT = ReadingFailure(since=NOW - 3, reason="SlurmSilent", message="squeue did not answer.")
EMPTY = snapshot()


def see(*attempts: Attempt, **changes: Any) -> Observed:
    """What is seen of these attempts; the cluster answers, and shows no job unless told otherwise."""
    values: dict[str, Any] = {
        "endpoints": (),
        "status": Status(),
        "snapshot": EMPTY,
        "reading_failure": None,
        "files": {},
        "probes": {},
        "sent": {},
        "cancelled": {},
    }
    return Observed(attempts=attempts, **{**values, **changes})


def see_running(*attempts: Attempt, **changes: Any) -> Observed:
    """All of these claimed, running and, where they have been ready, answering."""
    live = [a for a in attempts if a.gone_at is None]
    files: dict[str, JobFiles] = {}
    probes: dict[str, Probe] = {}
    for each in live:
        files |= claim(each, step="serving" if each.port else "starting", port=each.port)
        probes |= answers(each) if each.ready else {}
    jobs = [job(each, RUNNING) for each in live]
    return see(*attempts, **{"snapshot": snapshot(*jobs), "files": files, "probes": probes, **changes})


def plan(wanted: Desired, seen: Observed, now: float = NOW, limits: Limits = LIMITS) -> Plan:
    return decide(wanted, seen, now, limits)


def after(seen: Observed, plan_: Plan) -> dict[str, Attempt]:
    """All attempts as they are once the plan is recorded."""
    return {a.token: a for a in (*seen.attempts, *plan_.attempts)}


def record(seen: Observed, plan_: Plan) -> Observed:
    """What the next pass sees if nothing outside changes."""
    return replace(
        seen,
        attempts=tuple(after(seen, plan_).values()),
        status=plan_.status or seen.status,
        endpoints=seen.endpoints if plan_.endpoints is None else plan_.endpoints,
    )


def only(seen: Observed, wanted: Desired | None = None, now: float = NOW) -> Attempt:
    """Decide over a single attempt, and return what becomes of it."""
    (attempt,) = seen.attempts
    return after(seen, plan(wanted or desired(), seen, now))[attempt.token]


def actions(seen: Observed, wanted: Desired | None = None, now: float = NOW) -> tuple[Action, ...]:
    return plan(wanted or desired(), seen, now).actions


def condition(status: Status | None, kind: str) -> Condition:
    found = find(status.conditions, kind) if status is not None else None
    assert found is not None, f"no condition {kind}"
    return found


def endpoint(attempt: Attempt, models: tuple[str, ...] = ("m",), *, up: bool = True) -> Endpoint:
    return Endpoint(token=attempt.token, replica=attempt.replica, models=models, host="10.0.0.1", port=8000, ready=up)


def merged(*tables: Mapping[str, Any]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for table in tables:
        result |= table
    return result
