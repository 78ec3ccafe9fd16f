"""What people want of one service."""

from __future__ import annotations

from dataclasses import dataclass

from api.contract.launch import LaunchSpec


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
    paused: bool = False
    """Whether its changes are held back from what runs."""
    door: str | None = None
    """Under which of the installation's keys the doors of new attempts are made: the newest."""
