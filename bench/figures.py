"""Figures and the Markdown tables they are told in."""

from __future__ import annotations

import math
import os
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

CLOCK_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(slots=True)
class Table:
    """One table, what was aimed at, and what one must know to read it."""

    title: str
    columns: tuple[str, ...]
    rows: list[tuple[str, ...]] = field(default_factory=list)
    goals: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, *cells: str) -> None:
        """Add a row."""
        self.rows.append(cells)

    def goal(self, what: str, figure: float, limit: float, unit: str) -> None:
        """Put a goal beside its figure."""
        mark = "✓" if figure < limit else "✗"
        self.goals.append(f"{mark} {what}: {figure:.3g} {unit}, goal below {limit:g} {unit}")

    def markdown(self) -> str:
        """Return the table with its goals and notes."""
        lines = [
            f"## {self.title}",
            "",
            _row(self.columns),
            _row("---" if i == 0 else "--:" for i in range(self.width)),
        ]
        lines += [_row(cells) for cells in self.rows]
        lines += ["", *(f"- {text}" for text in (*self.goals, *self.notes))]
        return "\n".join(lines) + "\n"

    @property
    def width(self) -> int:
        """How many columns there are."""
        return len(self.columns)


def _row(cells: Sequence[str] | object) -> str:
    return f"| {' | '.join(cells)} |"  # type: ignore[arg-type]


def median(values: Sequence[float]) -> float:
    """Return the median, NaN of nothing."""
    return statistics.median(values) if values else math.nan


def percentile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that at least this share of all does not exceed (nearest rank)."""
    if not values:
        return math.nan
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def ms(seconds: float) -> str:
    """Write a time in milliseconds."""
    return f"{seconds * 1000:.1f}"


def cpu_seconds(pid: int) -> float:
    """Return the processor time of a process and all its threads, without its children (proc(5), stat)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / CLOCK_TICKS


def load() -> str:
    """Return the load averages of this machine."""
    return " ".join(f"{value:.2f}" for value in os.getloadavg())
