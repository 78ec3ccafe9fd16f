"""How often the cluster is read: closely while something changes, ever more rarely while nothing does."""

from __future__ import annotations


class Rhythm:
    """Says when a reading is due. Seconds."""

    def __init__(self, fastest: float, slowest: float) -> None:
        self.fastest = fastest
        self._slowest = slowest
        self._pause = fastest
        self._last = float("-inf")

    def is_due(self, now: float, *, changing: bool) -> bool:
        """Whether to read now; if so, the next reading is counted from here."""
        if changing:
            self._pause = self.fastest
        # Timers fire a little early or late: half a beat is no reason to wait for the next one.
        # A clock that was put back starts the count anew.
        if 0 <= now - self._last < self._pause - self.fastest / 2:
            return False
        self._last = now
        if not changing:
            self._pause = min(self._pause * 2, self._slowest)
        return True

    def read_now(self, now: float) -> None:
        """Count a reading that is made out of turn."""
        self._pause = self.fastest
        self._last = now

    def hurry(self) -> None:
        """Read again at the next beat."""
        self._pause = self.fastest
        self._last = float("-inf")
