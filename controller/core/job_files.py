"""What a job has written into its folder."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec


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
    network_refusal: str = ""
    """Why its node gives it no network of its own; empty: it does, or was not asked for one."""
    told_to_end_at: float | None = None
    """When somebody told the job to end, by its node's clock; its engine may go on for a while. `None`: nobody did."""
    exit: JobExit | None = None
    is_told_to_drain: bool = False
    """Whether the controller has told its door to let nobody new in."""
    is_empty: bool = False
    """Whether its door lets nobody new in, and nobody has anything open on the engine."""
    last_words: str = ""
    """The end of its standard error, read once its job has ended without an exit record."""
    quiet_for: float | None = None
    """Seconds for which this controller has seen no new sign of life of the wrapper; `None`: it gives none."""
