"""What one service needs now."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from controller.core.attempt import Attempt
from controller.core.published import Endpoint, Event, Status


class Submit(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="kind", tag=str.lower):
    """Send this attempt's job. Its intent is recorded before."""

    token: str
    exclude: tuple[str, ...] = ()
    """Nodes to keep it off, if others are there."""


class Cancel(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag=str.lower):
    """Cancel this job, by name and id together. Its attempt is durably closed before, or another job holds it."""

    token: str
    job_id: int


class Revoke(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag=str.lower):
    """Take the claim of a token that no job has claimed, so that none that comes late can run."""

    token: str


class Drain(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag=str.lower):
    """Tell the door of this attempt to let nobody new in, and to close what nobody uses."""

    token: str


class Reopen(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag=str.lower):
    """Take that back: its attempt is preferred again."""

    token: str


class Shorten(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag=str.lower):
    """Lower the time limit of the queued job of this attempt, so that it ends before a maintenance."""

    token: str
    minutes: int
    before: float
    """When the maintenance begins (Unix seconds)."""


Action = Submit | Cancel | Revoke | Drain | Reopen | Shorten


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
