"""All that is seen of one service in one pass.

All times are Unix seconds of the controller's host, given from outside.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from api.contract.job.token import Token
from controller.core.attempt import Attempt, Probe, Sent, Shortening
from controller.core.bad_nodes import BadNode
from controller.core.job_files import JobFiles
from controller.core.jobs import ReadingFailure, Snapshot
from controller.core.lead import History
from controller.core.published import Endpoint, Status


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
    shortened: Mapping[str, Shortening] = field(default_factory=dict)
    """What this term last did to the time limit of a job of that token."""
    term_began_at: float = 0.0
    """When this term began: times that were noted before it are another clock's."""
    strays: tuple[Token, ...] = ()
    """Jobs of this service that live on the cluster and that no attempt of it stands for."""
    bad_nodes: tuple[BadNode, ...] = ()
    """That its next jobs are to be kept off."""
    grant: Grant = Grant()
    """What this service may take now."""
    history: History = field(default_factory=History)
    """What was measured of jobs like its own."""
    heard: int | None = None
    """Up to which number of the feed every gateway that lives has heard all; `None`: none lives, or none was asked."""
