"""Signs of life: how long each job's wrapper has given none.

A sign is whatever changes while a wrapper lives (the time of its file's last change), and means nothing by itself. How
long it has stayed the same is counted by this process's monotonic clock, so that no two hosts' clocks are compared.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

Sign = int


class _Seen(NamedTuple):
    sign: Sign
    first_at: float
    """When it was first seen: it has been the same at least since."""
    last_at: float
    after: float | None
    """When the one before was last seen: it was given after that. `None`: there was none before."""


class Signs:
    """The last sign of each job that is looked at, and when it was first seen."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._seen: dict[str, dict[str, _Seen]] = {}

    def take(self, service_id: str, signs: Mapping[str, Sign | None]) -> dict[str, float | None]:
        """Take in the signs of all jobs of a service that matter; return for how many seconds at least none was new.

        `None`: that job gives no signs. Jobs that are not named any more are forgotten.
        """
        before = self._seen.get(service_id, {})
        now = self._monotonic()
        seen = {token: _newer(before.get(token), sign, now) for token, sign in signs.items() if sign is not None}
        self._seen[service_id] = seen
        return {token: now - seen[token].first_at if token in seen else None for token in signs}

    def oldest(self, service_id: str, token: str) -> float | None:
        """Return how many seconds ago, at most, a job gave the sign that was taken in last; `None`: nobody knows."""
        seen = self._seen.get(service_id, {}).get(token)
        return self._monotonic() - seen.after if seen is not None and seen.after is not None else None


def _newer(before: _Seen | None, sign: Sign, now: float) -> _Seen:
    if before is None:
        return _Seen(sign, first_at=now, last_at=now, after=None)
    if before.sign == sign:
        return before._replace(last_at=now)
    return _Seen(sign, first_at=now, last_at=now, after=before.last_at)
