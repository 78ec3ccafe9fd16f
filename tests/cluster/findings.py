"""What a run of `make chaos` did, and what came of it: the closing table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field

LONG = 200
"""So many kills are long enough for every kind of fault to strike."""
ENOUGH_SAMPLES = 0.8
"""A second."""
TAKEN_OVER = "  of these ready"
"""How the successors are counted that could take over."""


@dataclass
class Findings:
    """What was done, and what came of it."""

    seed: int
    seconds: float = 0.0
    kills: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    changes: Counter[str] = field(default_factory=Counter)
    work: Counter[str] = field(default_factory=Counter)
    convergence: list[float] = field(default_factory=list)
    """Seconds from each mending until all was as wanted."""
    doubled: list[str] = field(default_factory=list)
    leaked: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    unproved: list[str] = field(default_factory=list)
    """Why the run proves less than it says."""

    @property
    def clean(self) -> bool:
        """Whether nothing was doubled, leaked or lost, and that was looked at all the while."""
        return not (self.doubled or self.leaked or self.lost or self.unproved)

    def vouch(self, kinds: Collection[str], samples: int) -> None:
        """Note what was not tried or not seen: what never came about in a long run, too few samples."""
        if self.kills.total() >= LONG:
            self.unproved += [f"never struck: {kind}" for kind in kinds if not self.faults[kind]]
            if not self.work[TAKEN_OVER]:
                self.unproved.append("no replica was handed over")
        if samples < ENOUGH_SAMPLES * self.seconds:
            self.unproved.append(f"what lives was looked at {samples} times in {self.seconds:.0f} s")

    def table(self) -> str:
        """Return it all as text."""
        lines = [f"seed {self.seed}, {self.seconds:.0f} s"]
        for title in ("kills", "faults", "changes"):
            counts: Counter[str] = getattr(self, title)
            lines += [_line(title, counts.total()), *(_line(f"  {k}", n) for k, n in sorted(counts.items()))]
        lines += [_line(what, count) for what, count in self.work.items()]
        for title in ("doubled", "leaked", "lost", "unproved"):
            found: list[str] = getattr(self, title)
            lines += [_line(title, len(found)), *(f"  {each}" for each in found)]
        seconds = ", ".join(f"{each:.0f}" for each in self.convergence)
        return "\n".join([*lines, f"seconds to convergence, after each mending: {seconds}"])


def _line(what: str, count: int) -> str:
    return f"{what:<58}{count:>6}"
