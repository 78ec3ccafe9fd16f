"""Which replicas are left out for a while, since connections to them failed. Pure: the time is an argument.

The controller's probes are slower than requests are. Nothing here is a verdict: a replica that is left out is tried
again by itself, and where all are, all are asked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from api.web.replicas import ReadyReplica

FAILURES = 2
"""In a row, after which a replica is left out."""
FIRST_SECONDS, MOST_SECONDS = 5.0, 60.0
KEPT_SECONDS = 600.0
"""For so long after its last failure a replica is thought of: most that fail never come back."""


@dataclass(slots=True)
class _Record:
    failures: int = 0
    seconds: float = FIRST_SECONDS
    out_until: float = 0.0
    failed_at: float = 0.0


class Ejections:
    """What is known of replicas to which connections failed, by token."""

    def __init__(self) -> None:
        self._records: dict[str, _Record] = {}

    def fail(self, token: str, now: float) -> None:
        """Note that a connection failed."""
        self._records = {known: one for known, one in self._records.items() if now - one.failed_at < KEPT_SECONDS}
        record = self._records.setdefault(token, _Record())
        record.failures += 1
        record.failed_at = now
        if record.failures >= FAILURES and record.out_until <= now:
            record.out_until = now + record.seconds
            record.seconds = min(2 * record.seconds, MOST_SECONDS)

    def succeed(self, token: str) -> None:
        """Note that it answered."""
        self._records.pop(token, None)

    def among(self, replicas: Sequence[ReadyReplica], now: float) -> Sequence[ReadyReplica]:
        """Return those that may be asked; all where none would be left."""
        if not self._records:
            return replicas
        return [replica for replica in replicas if not self._is_out(replica.token, now)] or replicas

    def _is_out(self, token: str, now: float) -> bool:
        record = self._records.get(token)
        return record is not None and record.out_until > now
