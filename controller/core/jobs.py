"""What a cluster says of our jobs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


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


class Bar(StrEnum):
    """Why a queued job never starts as things are."""

    OVER_LIMIT = "OverLimit"
    """It asks for more, or less, than one job may."""
    NOT_PERMITTED = "NotPermitted"
    """Whose it is may not run there."""
    UNSATISFIABLE = "Unsatisfiable"
    """What it asks for is not there."""


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
    bar: Bar | None = None
    """Why it never starts by itself; `None`: it may."""
    is_kept_back: bool = False
    """Whether it waits for another job to end."""
    is_held: bool = False
    """Whether somebody, or Slurm itself, holds it: it begins once it is released."""
    lacks_room: bool = False
    """Whether a limit on its owner's jobs together holds it: it begins once another one of them ends."""
    awaits_maintenance: bool = False
    """Whether it is kept back because it could not end before a maintenance begins."""
    time_limit: float | None = None
    """For how many seconds it may run; `None`: without end, or not known."""
    begins_at: float | None = field(default=None, compare=False)
    """When the cluster expects that a queued one begins. A forecast that changes is no news."""
    node: str | None = None
    """The first node of its allocation: where the batch script runs."""
    started_at: float | None = None
    ends_at: float | None = None
    """When its time limit comes."""
    node_leaves: str = ""
    """The state of that node, in the cluster's word, if it is being taken out of service."""
    exit_code: int | None = None
    signal: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Maintenance:
    """A reservation of nodes in which no job of users runs. Unix seconds."""

    begins_at: float
    ends_at: float


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
    maintenances: tuple[Maintenance, ...] = ()
    """Those that this user may see. They are read only while a job waits for one."""
    accounting_trouble: str = ""
    """What accounting said when it was last asked, if that was no answer; for people."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadingFailure:
    """The newest readings of the cluster failed."""

    since: float
    reason: str
    message: str
