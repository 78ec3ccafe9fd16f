"""One try at running a replica, and what is known of its engine and of its sbatch."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from api.contract.job.words import Lane
from api.contract.launch import Health, LaunchSpec


class HandOverReason(StrEnum):
    """Why an attempt is opened beside another one of its replica, which it takes over from."""

    TIME_LIMIT = "TimeLimit"
    """Its job's time is soon over."""
    CHANGED = "Changed"
    """It was launched otherwise than is wanted now."""
    INTERRUPTED = "Interrupted"
    """Somebody else has told its job to end: preemption with a grace, an administrator."""
    NODE_DRAINS = "NodeDrains"
    """Its node is being taken out of service."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One try at running a replica: one Slurm job under one token. Closing it can't be undone."""

    token: str
    service_id: str
    replica: int
    incarnation: int
    lane: Lane = Lane.MAIN
    beside: str | None = None
    """Why it may live beside what is left of its replica's other lane (`HandOverReason`); `None`: it may not."""
    door: str | None = None
    """Under which of the installation's keys its door is made; `None`: it has none, its engine listens by itself."""
    generation: int
    digest: str
    """Of the launch spec it runs."""
    gpus: int = 0
    """That its job asks for."""
    failures: int = 0
    """Failures in a row of this replica before this attempt: the more, the longer it waited."""
    faults: int = 0
    """Those of them that speak against what was launched: too many, and it is given up."""
    intent_at: float
    job_id: int | None = None
    submitted_at: float | None = None
    absent_since: float | None = None
    """Since when the snapshots that count lack its job, or show only its node tearing it down."""
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
    draining_since: float | None = None
    """Since when it gets no new requests, and finishes those it has: another one has its traffic, or it is to go."""
    draining_feed: int | None = None
    """The feed's number when that was recorded; recording knows it."""
    shut_at: float | None = None
    """Since when nobody new comes: every gateway that lives has applied that number, and its door was told."""
    ends_at: float | None = None
    closed_at: float | None = None
    outcome: str | None = None
    """Why it was closed: one CamelCase word."""
    message: str = ""
    """Why it was closed, for people. Of an open one: what sbatch said, if that leaves open whether there is a job."""
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

    @property
    def serves(self) -> bool:
        """Whether it gets new requests: it is ready, and does not drain."""
        return self.ready and self.draining_since is None


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
    """What sbatch said."""
    is_refusal: bool = False
    """Whether that is a no in the site's own words: once looking has proved that no job came, it counts as refused."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shortening:
    """What this term last did to the time limit of a queued job, so that it ends before a maintenance."""

    at: float
    minutes: int
    """What the limit was to be."""
    before: float
    """When that maintenance begins (Unix seconds)."""
    trouble: str = ""
    """What Slurm said instead of doing it; empty: it did."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """The latest probe of one attempt's engine, and how many failed in a row before it."""

    at: float
    ready: bool
    failures: int
    message: str = ""
    is_own: bool = False
    """Whether what answered proved to be the attempt\'s own engine. Elsewhere another may listen by now."""
    asked: bool = True
    """False: nobody can ask it, so that it says nothing of its engine."""
    quiet_since: float | None = None
    """Since when its engine, draining, has said that nothing is in flight."""
    unreached_since: float | None = None
    """Since when no connection came about: its name is not known here, refused, filtered, no way to it."""


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
