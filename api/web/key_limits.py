"""How much may be asked under a key."""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyLimits:
    """`None`: as much as one likes."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    requests_at_once: int | None = None


UNLIMITED = KeyLimits()
LIMITS = tuple(field.name for field in fields(KeyLimits))
MOST = {"requests_per_minute": 10**9, "tokens_per_minute": 10**9, "requests_at_once": 10_000}
