"""Which replicas are left out for a while, since they fail those who ask. Pure: the time is an argument.

The controller's probes are slower than requests are. Nothing here is a verdict: a replica that is left out is tried
again by itself, by one request at a time until one is answered, and where all are out, all are asked.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from api.web.replicas import ReadyReplica

CONNECTIONS = 2
"""That failed in a row, after which a replica is left out."""
ERRORS, ERROR_SECONDS, CALLERS = 5, 10.0, 2
"""So many answers of 5xx in so many seconds, to so many callers at least: one alone may ask for what breaks it."""
LOAD = 503
"""What engines answer whose queue is full; they are well."""
FIRST_SECONDS, MOST_SECONDS = 5.0, 60.0
KEPT_SECONDS = 600.0
"""For so long after its last failure a replica is thought of: most that fail never come back."""


@dataclass(slots=True)
class _Record:
    failed_at: float = 0.0
    connections: int = 0
    errors: deque[tuple[float, str]] = field(default_factory=lambda: deque(maxlen=ERRORS))
    """When and to whom; more than these can't be needed: if the last ones are all one caller's, so are those before."""
    seconds: float = FIRST_SECONDS
    out_until: float | None = None
    """`None`: it is in."""
    is_tried: bool = False
    """Whether a request is under way that decides whether it comes back."""

    def may_be_asked(self, now: float) -> bool:
        return self.out_until is None or (self.out_until <= now and not self.is_tried)

    def leave_out(self, now: float) -> None:
        self.out_until, self.is_tried = now + self.seconds, False
        self.seconds = min(2 * self.seconds, MOST_SECONDS)
        self.connections = 0
        self.errors.clear()


class Ejections:
    """What is known of replicas that failed, by token."""

    def __init__(self) -> None:
        self._records: dict[str, _Record] = {}

    def among(self, replicas: Sequence[ReadyReplica], now: float) -> Sequence[ReadyReplica]:
        """Return those that may be asked; all where none would be left."""
        if not self._records:
            return replicas
        return [replica for replica in replicas if self._may_be_asked(replica.token, now)] or replicas

    def begin(self, token: str, now: float) -> bool:
        """Note that it is asked; return whether that decides if it comes back."""
        record = self._records.get(token)
        if record is None or record.out_until is None or record.out_until > now or record.is_tried:
            return False
        record.is_tried = True
        return True

    def give_up(self, token: str) -> None:
        """Note that what was to decide is over, whether or not it has decided."""
        if token in self._records:
            self._records[token].is_tried = False

    def fail(self, token: str, now: float) -> None:
        """Note that a connection failed."""
        record = self._failed(token, now)
        record.connections += 1
        self._judge(record, now, is_bad=record.connections >= CONNECTIONS)

    def answer(self, token: str, status: int, caller: str, now: float) -> None:
        """Note an answer's status, and whose request it answers."""
        if status < 500 or status == LOAD:
            self._forgive(token, now)
            return
        record = self._failed(token, now)
        record.connections = 0
        record.errors.append((now, caller))
        recent = [whose for at, whose in record.errors if now - at <= ERROR_SECONDS]
        self._judge(record, now, is_bad=len(recent) >= ERRORS and len(set(recent)) >= CALLERS)

    @staticmethod
    def _judge(record: _Record, now: float, *, is_bad: bool) -> None:
        """Leave it out if it is bad, or fails when it is tried; what it does while it is out prolongs nothing."""
        is_out = record.out_until is not None and now < record.out_until
        if not is_out and (is_bad or record.out_until is not None):
            record.leave_out(now)

    def _forgive(self, token: str, now: float) -> None:
        """Take it back in once it may be tried. What it answered others shortly before still counts."""
        record = self._records.get(token)
        if record is None or (record.out_until is not None and now < record.out_until):
            return
        if record.out_until is not None or not any(now - at <= ERROR_SECONDS for at, _ in record.errors):
            del self._records[token]
        else:
            record.connections = 0

    def _failed(self, token: str, now: float) -> _Record:
        self._records = {known: one for known, one in self._records.items() if now - one.failed_at < KEPT_SECONDS}
        record = self._records.setdefault(token, _Record())
        record.failed_at = now
        return record

    def _may_be_asked(self, token: str, now: float) -> bool:
        record = self._records.get(token)
        return record is None or record.may_be_asked(now)
