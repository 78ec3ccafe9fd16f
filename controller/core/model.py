"""The values that deciding works on: what is wanted, what is seen, what to do.

All times are Unix seconds of the controller's host, given from outside.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

import msgspec

from api.contract.job.token import Token
from api.contract.job.words import Lane
from api.contract.launch import Health, LaunchSpec
from api.contract.status import Condition


class JobPhase(StrEnum):
    """Where a job is on its way."""

    PENDING = "pending"
    """Queued, held or configuring: its script has not begun."""
    RUNNING = "running"
    SUSPENDED = "suspended"
    COMPLETING = "completing"
    """Being torn down; may still hold its node."""
    ENDED = "ended"


class JobEnd(StrEnum):
    """How a cluster says that a job ended."""

    COMPLETED = "completed"
    FAILED = "failed"
    """With an exit code or by a signal of its own."""
    CANCELLED = "cancelled"
    PREEMPTED = "preempted"
    TIME_LIMIT = "time limit"
    DEADLINE = "deadline"
    NODE_FAILED = "node failed"
    BOOT_FAILED = "boot failed"
    OUT_OF_MEMORY = "out of memory"


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One Slurm job under one of our tokens, as squeue or sacct shows it."""

    job_id: int
    token: str
    phase: JobPhase
    state: str
    """The cluster's own word, for people; deciding reads `phase` and `end`."""
    end: JobEnd | None = None
    """`None` while it has not ended."""
    reason: str = ""
    """Why it is pending, or why it ended, in the cluster's words, for people."""
    advice: str = ""
    """What to do about a job that does not run."""
    is_kept_back: bool = False
    """Whether it waits for another job to end."""
    node: str | None = None
    """The first node of its allocation: where the batch script runs."""
    started_at: float | None = None
    ends_at: float | None = None
    """When its time limit comes."""
    exit_code: int | None = None
    signal: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """One successful reading of all our jobs on the cluster."""

    sequence: int
    """Taken when the reading began, from the counter that every returned sbatch takes a number of too.

    Absence of a token counts only if this is above the number of the last sbatch for it.
    """
    began_at: float
    jobs: Mapping[str, tuple[Job, ...]]
    """By token. Ended jobs that squeue has dropped are filled in from accounting."""
    missing: frozenset[str] = frozenset()
    """Vanished tokens that accounting was asked about and does not know, or could not be asked."""
    in_doubt: frozenset[str] = frozenset()
    """Tokens of a mass vanishing: more than half, and at least five, of the live ones left in one reading."""
    addresses: Mapping[str, str] = field(default_factory=dict)
    """Node name -> the address it answers under (NodeAddr)."""


class Held(msgspec.Struct, frozen=True, kw_only=True, tag_field="claim", tag=str.lower):
    """A job has the attempt's claim."""

    job_id: int


class Revoked(msgspec.Struct, frozen=True, kw_only=True, tag_field="claim", tag=str.lower):
    """The controller has it: no job of this attempt can run any more."""


class Unreadable(msgspec.Struct, frozen=True, kw_only=True, tag_field="claim", tag=str.lower):
    """Somebody has it, but what it says can't be read. It may be a revocation."""


Claim = Held | Revoked | Unreadable
"""Who won an attempt's claim. One that is absent may still be won."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobExit:
    """How the wrapper says that its engine ended."""

    code: int
    reason: str
    """One CamelCase word: an `ExitReason`, or what another release says."""
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What the wrapper's own health checks say, where the recipe has the job make them."""

    ok: bool
    failures: int
    """In a row."""
    message: str = ""
    age: float | None = None
    """How many seconds ago, at most, its writer gave a sign of life; `None`: nobody knows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFiles:
    """What an attempt's job has written into its folder. Absent files read as `None`, garbled ones too."""

    claim: Claim | None = None
    step: str | None = None
    """How far the wrapper is: a `Step`, or what another release says."""
    detail: str = ""
    """What there is to say of that step: how far the engine's start is, in its own words, or what is waited for."""
    port: int | None = None
    exit: JobExit | None = None
    quiet_for: float | None = None
    """Seconds for which this controller has seen no new sign of life of the wrapper; `None`: it gives none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """The latest probe of one attempt's engine, and how many failed in a row before it."""

    at: float
    ready: bool
    failures: int
    message: str = ""
    is_own: bool = False
    """Whether what answered proved to be the attempt\'s own engine. Elsewhere another may listen by now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeSpec:
    """What of a launch spec it takes to probe an engine."""

    engine: str
    model: str | None
    health: Health | None

    @classmethod
    def of(cls, spec: LaunchSpec) -> ProbeSpec:
        """Return that part of a launch spec."""
        return cls(engine=spec.engine, model=spec.model, health=spec.health)


class SendOutcome(StrEnum):
    """What came of an sbatch. Unknown is the default, and is settled by looking, never by sending again."""

    ACCEPTED = "accepted"
    REJECTED = "rejected"
    """Slurm said no, for good: what was asked for is wrong."""
    DEFERRED = "deferred"
    """Slurm said not now (a submit limit); nothing was created."""
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """What this term knows of its sbatch for one token."""

    outcome: SendOutcome
    sequence: int
    """Taken from the snapshots' counter when sbatch returned."""
    job_id: int | None = None
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One try at running a replica: one Slurm job under one token. Closing it can't be undone."""

    token: str
    service_id: str
    replica: int
    incarnation: int
    lane: Lane = Lane.MAIN
    beside: str | None = None
    """Why it may live beside what is left of its replica's other lane, in one CamelCase word; `None`: it may not."""
    generation: int
    digest: str
    """Of the launch spec it runs."""
    gpus: int = 0
    """That its job asks for."""
    failures: int = 0
    """Failures in a row of this replica before this attempt."""
    intent_at: float
    job_id: int | None = None
    submitted_at: float | None = None
    absent_since: float | None = None
    """Since when the snapshots that count lack its job."""
    claimed_at: float | None = None
    """When its claim was first read."""
    started_at: float | None = None
    """When the job got its node."""
    node: str | None = None
    host: str | None = None
    """The address under which the node answers."""
    launched_at: float | None = None
    """When its image was there: from then on it has to become ready in time."""
    port: int | None = None
    serving_at: float | None = None
    """When its port was known."""
    ready_at: float | None = None
    """First time ready; `unready_since` says whether it still is."""
    unready_since: float | None = None
    ends_at: float | None = None
    closed_at: float | None = None
    outcome: str | None = None
    """Why it was closed: one CamelCase word."""
    message: str = ""
    exit_code: int | None = None
    gone_at: float | None = None
    """Closed, and nothing of it is left on the cluster nor can come."""

    @property
    def open(self) -> bool:
        """Whether this attempt still stands for its replica."""
        return self.closed_at is None

    @property
    def ready(self) -> bool:
        """Whether a prompt would be answered now."""
        return self.open and self.ready_at is not None and self.unready_since is None


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why a service can't be resolved: no such recipe, a bad value."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Desired:
    """What people want of one service, resolved."""

    installation: str
    service_id: str
    name: str
    generation: int
    running: bool
    """False once it is stopped or deleted."""
    replicas: int
    spec: LaunchSpec | None
    digest: str
    refusal: Refusal | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadingFailure:
    """The newest readings of the cluster failed."""

    since: float
    reason: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """Where a replica answers, and under which model names."""

    token: str
    replica: int
    models: tuple[str, ...]
    host: str
    port: int
    ready: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """What the controller says about a service; written only when it changed."""

    observed_generation: int = 0
    replicas: int = 0
    """How many people want."""
    target: int = 0
    """How many there are to be."""
    ready_replicas: int = 0
    conditions: tuple[Condition, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Quota:
    """The site's ceilings on GPUs, 0 where there is none, and what of them is used."""

    gpus: int = 0
    """That all services together may hold."""
    gpus_per_service: int = 0
    gpu_hours: float = 0.0
    """That all services together may use in a calendar month (UTC)."""
    gpu_hours_per_service: float = 0.0
    held_by_others: int = 0
    """GPUs of the attempts of other services that are not gone, or are about to be opened."""
    hours: float = 0.0
    """GPU-hours that all services have used in this month."""
    hours_of_service: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """What one service may take now."""

    jobs: int | None = None
    """How many the pace of submissions lets through; `None`: any number."""
    quota: Quota | None = None
    """`None`: there are no ceilings."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """All that is seen of one service in one pass."""

    attempts: tuple[Attempt, ...]
    """Those not gone, and the newest of each replica's lane."""
    endpoints: tuple[Endpoint, ...]
    status: Status
    snapshot: Snapshot | None
    """`None` until this term's first successful reading."""
    reading_failure: ReadingFailure | None
    files: Mapping[str, JobFiles]
    probes: Mapping[str, Probe]
    sent: Mapping[str, Sent]
    """What this term has sent."""
    cancelled: Mapping[str, float]
    """When this term last cancelled a job of that token."""
    term_began_at: float = 0.0
    """When this term began: times that were noted before it are another clock's."""
    strays: tuple[Token, ...] = ()
    """Jobs of this service that live on the cluster and that no attempt of it stands for."""
    grant: Grant = Grant()
    """What this service may take now."""


class Submit(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag=str.lower):
    """Send this attempt's job. Its intent is recorded before."""

    token: str


class Cancel(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag=str.lower):
    """Cancel this job, by name and id together. Its attempt is durably closed before, or another job holds it."""

    token: str
    job_id: int


class Revoke(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag=str.lower):
    """Take the claim of a token that no job has claimed, so that none that comes late can run."""

    token: str


Action = Submit | Cancel | Revoke


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One line of a service's history, in the past tense, for people."""

    reason: str
    message: str
    warning: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What one service needs now. Computed, not done."""

    attempts: tuple[Attempt, ...] = ()
    """Rows to insert or replace, in full."""
    endpoints: tuple[Endpoint, ...] | None = None
    """All endpoints of the service; `None`: unchanged."""
    status: Status | None = None
    """`None`: unchanged."""
    events: tuple[Event, ...] = ()
    actions: tuple[Action, ...] = ()
    look_again_at: float | None = None
    """When to look again by ourselves; a snapshot, a probe or a change of what is wanted may come first."""
    wants_turn: bool = False
    """Whether a job would be submitted, did the pace of submissions allow it."""
    wants_gpus: int = 0
    """GPUs that the next replica waits for others to give back."""

    @property
    def changes(self) -> bool:
        """Whether there is anything to write."""
        return bool(self.attempts or self.events or self.status is not None or self.endpoints is not None)

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to write and nothing to do."""
        return not (self.changes or self.actions)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The waiting times of the protocol, in seconds."""

    absence_grace: float = 15.0
    """How long a job must be absent from snapshots before it counts as never created, or as vanished."""
    accounting_grace: float = 60.0
    """How long accounting may take to know a job that vanished, before absence itself decides."""
    doubt_grace: float = 600.0
    """How long a mass vanishing is taken for a broken reading where no second source says a word."""
    sign_grace: float = 20.0
    """How long a wrapper may give no sign of life before that counts against it; it gives one every 5 s, or nearly."""
    backoff_first: float = 2.0
    backoff_most: float = 300.0
    quick_end: float = 60.0
    """An attempt that ends sooner than this after it started counts as a failure whatever ended it."""
    steady_after: float = 600.0
    """An attempt that was ready this long clears the count of failures."""
    cancel_again: float = 10.0
    """How long a cancelled job may take before it is cancelled again."""
    silence: float = 20.0
    """How long readings may fail before services say so."""
    soon: float = 0.2
    """How long to wait until what was sent or revoked is looked at. What was cancelled only the next reading shows."""
    glance: float = 1.0
    """How often the files of a starting job are read."""
