"""What the controller says about a service: to its users, and to those who route requests."""

from __future__ import annotations

from dataclasses import dataclass

from api.contract.status import Condition


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """Where a replica answers, and under which model names."""

    token: str
    replica: int
    models: tuple[str, ...]
    host: str
    port: int
    door: str | None = None
    """Its attempt's."""
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
class Event:
    """One line of a service's history, in the past tense, for people."""

    reason: str
    message: str
    warning: bool = False
