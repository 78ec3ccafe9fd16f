"""The waiting times of the protocol."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The waiting times of the protocol, in seconds."""

    absence_grace: float = 15.0
    """How long a job must be absent from snapshots before it counts as never created, or as vanished."""
    accounting_grace: float = 60.0
    """How long accounting may take to know a job that vanished, before absence itself decides."""
    teardown_grace: float = 10.0
    """How long a job whose engine has surely ended may be torn down before it is not waited for."""
    teardown_look: float = 3.0
    """How often the record of a job is looked for that is torn down: Slurm tells no news of it until its end."""
    unreachable_grace: float = 120.0
    """How long what listens may be out of the controller's reach, before it has ever been ready."""
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
    drain_settles: float = 5.0
    """How long a request may be on its way to an engine, by who has not heard yet that its attempt drains."""
    drain_hears: float = 10.0
    """How long gateways, and its door, may take to hear that an attempt drains, before one of both is enough."""
    drain_most: float = 300.0
    """How long a draining attempt may finish what is in flight."""
    cancel_again: float = 10.0
    """How long a cancelled job may take before it is cancelled again."""
    shorten_again: float = 30.0
    """How long a job that was shortened before a maintenance is let wait until it is shortened further."""
    silence: float = 10.0
    """How long readings may fail before services say so, since the first began: squeue itself tries for 10 s."""
    soon: float = 0.2
    """How long to wait until what was sent or revoked is looked at. What was cancelled only the next reading shows."""
    glance: float = 1.0
    """How often the files of a starting job are read."""
