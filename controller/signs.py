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
    at: float


class Signs:
    """The last sign of each job that is looked at, and when it was first seen."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._seen: dict[str, dict[str, _Seen]] = {}

    def take(self, service_id: str, signs: Mapping[str, Sign | None]) -> dict[str, float | None]:
        """Take in the signs of all jobs of a service that matter; return for how many seconds each has been the same.

        `None`: that job gives no signs. Jobs that are not named any more are forgotten.
        """
        before = self._seen.get(service_id, {})
        now = self._monotonic()
        seen = {token: _newer(before.get(token), sign, now) for token, sign in signs.items() if sign is not None}
        self._seen[service_id] = seen
        return {token: now - seen[token].at if token in seen else None for token in signs}

    def quiet_for(self, service_id: str, token: str) -> float | None:
        """Return for how many seconds a job that was taken in has given no new sign; `None`: it gives none."""
        seen = self._seen.get(service_id, {}).get(token)
        return self._monotonic() - seen.at if seen is not None else None


def _newer(before: _Seen | None, sign: Sign, now: float) -> _Seen:
    return before if before is not None and before.sign == sign else _Seen(sign, now)
