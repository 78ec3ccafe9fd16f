"""How long services take from a change of what is wanted until they are as wanted."""

from __future__ import annotations

from api.contract.status import Progress, Truth, find
from controller.report import Pass

_ENDS = {Progress.AS_WANTED: "ready", Progress.STOPPED: "stopped", Progress.COMPLETED: "completed"}


class Convergence:
    """Remembers since when each service is on its way. It knows only the changes that this process saw first."""

    def __init__(self) -> None:
        self._since: dict[str, tuple[int, float]] = {}

    def after(self, done: Pass) -> tuple[str, float] | None:
        """Return, once for each change, what the service came to and how many seconds that took."""
        desired, before = done.record.desired, done.record.status
        key = desired.service_id
        if before.observed_generation != desired.generation:
            self._since[key] = desired.generation, done.now
        generation, since = self._since.get(key, (None, 0.0))
        end = _end(done) if generation == desired.generation else None
        if end is None:
            return None
        del self._since[key]
        return end, done.now - since

    def forget(self) -> None:
        """Begin anew: what others did meanwhile is not known."""
        self._since.clear()


def _end(done: Pass) -> str | None:
    """Say what a service has come to; `None` while it is on its way, or has failed."""
    progressing = find((done.plan.status or done.record.status).conditions, "Progressing")
    if progressing is None or progressing.status is not Truth.FALSE:
        return None
    attempts = {a.token: a for a in (*done.record.attempts, *done.plan.attempts)}
    outdated = any(a.open and a.digest != done.record.desired.digest for a in attempts.values())
    return None if outdated else _ENDS.get(Progress(progressing.reason))
