"""Conditions, and the one place where the REST word of a service is derived from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum


class Truth(StrEnum):
    """The three values of a condition."""

    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """A named truth about a service (Accepted, Startable, Ready, Available, Progressing, Continuous, Observed)."""

    type: str
    status: Truth
    reason: str
    """One CamelCase word, for programs."""
    message: str
    """For people: what is the matter, and what to do about it."""
    since: float
    """When `status` last changed. Unix seconds."""
    generation: int
    """The generation of the service that it speaks of."""


class Progress(StrEnum):
    """Reasons of the condition Progressing."""

    SUBMITTING = "Submitting"
    QUEUED = "Queued"
    BUILDING_IMAGE = "BuildingImage"
    STARTING = "Starting"
    BACK_OFF = "BackOff"
    QUOTA_EXCEEDED = "QuotaExceeded"
    ROLLING_OUT = "RollingOut"
    ROLLOUT_PAUSED = "RolloutPaused"
    ROLLOUT_FAILED = "RolloutFailed"
    AS_WANTED = "AsWanted"
    STOPPING = "Stopping"
    STOPPED = "Stopped"
    COMPLETED = "Completed"
    FAILED = "Failed"


class Continuity(StrEnum):
    """Reasons of the condition Continuous."""

    NOTHING_AGAINST = "NothingAgainst"
    SUCCESSOR_LATE = "SuccessorLate"
    """A job ends before long, and its successor is still queued."""
    NO_ROOM = "NoRoom"
    """A limit lets no successor run beside the job that ends."""
    ONE_AT_A_TIME = "OneAtATime"
    """No successor may run beside the job that ends: they would write to one volume, or `update` says so."""


_WORDS: dict[str, str] = {
    Progress.BUILDING_IMAGE: "building",
    Progress.STARTING: "starting",
    Progress.COMPLETED: "completed",
    Progress.FAILED: "failed",
}


def time_of_day(at: float) -> str:
    """Write the time of a day (Unix seconds), so that a message stays the same from pass to pass."""
    return f"{datetime.fromtimestamp(int(at), UTC):%H:%M:%S} UTC"


def date_and_time(at: float) -> str:
    """Write a date and its time, to the minute."""
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M} UTC"


def find(conditions: Sequence[Condition], kind: str) -> Condition | None:
    """Return the condition of that type, if it has been set."""
    return next((c for c in conditions if c.type == kind), None)


def word(*, wanted: bool, conditions: Sequence[Condition]) -> str:
    """Return the REST status word of a service.

    `wanted` is False once the service is stopped or deleted. `running` means that a prompt would be answered now.
    """
    if not wanted:
        return "cancelled"
    accepted, available, progressing = (find(conditions, kind) for kind in ("Accepted", "Available", "Progressing"))
    if accepted is not None and accepted.status is Truth.FALSE:
        return "failed"
    if available is not None and available.status is Truth.TRUE:
        return "running"
    if progressing is None:
        return "pending"
    return _WORDS.get(progressing.reason, "pending")


def explanation(conditions: Sequence[Condition]) -> str:
    """Return the message that matters most now, for people; empty if there is none."""
    order = [c for c in conditions if c.type == "Accepted" and c.status is Truth.FALSE]
    order += [c for c in conditions if c.type == "Observed" and c.status is not Truth.TRUE]
    order += [c for c in conditions if c.type == "Progressing"]
    order += [c for c in conditions if c.type == "Continuous" and c.status is Truth.FALSE]
    return next((c.message for c in order if c.message), "")
