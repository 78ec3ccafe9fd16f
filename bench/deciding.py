"""What deciding over one service costs, by its replicas: the time is to grow as they do."""

from __future__ import annotations

import time
from pathlib import Path

from bench.figures import Table
from controller.core.decide import decide
from controller.core.desired import Desired
from controller.core.limits import Limits
from controller.core.observed import Observed
from tests.unit.core.builders import NOW, desired, ready, see_running

FEW, MANY = 100, 1000
TRIES = 9
CASES = {"at rest": {}, "rolled out": {"digest": "d2", "generation": 2}}
"""What people want beside what runs."""


def measure(_: Path) -> Table:
    """Return the table."""
    table = Table("Deciding over one service", ("its replicas", f"ms with {FEW}", f"ms with {MANY}", "ratio"))
    for case, wanted in CASES.items():
        few, many = (_seconds(desired(replicas=n, **wanted), _all_ready(n)) for n in (FEW, MANY))
        table.add(case, f"{few * 1000:.2f}", f"{many * 1000:.2f}", f"{many / few:.1f}")
        table.goal(f"{case}, {MANY // FEW} times as many", many / few, 1.5 * MANY / FEW, "times")
    table.notes.append(f"CPU of one core; of {TRIES} passes the fastest.")
    return table


def _all_ready(count: int) -> Observed:
    return see_running(*(ready(replica) for replica in range(count)))


def _seconds(wanted: Desired, seen: Observed) -> float:
    return min(_pass(wanted, seen) for _ in range(TRIES))


def _pass(wanted: Desired, seen: Observed) -> float:
    began = time.process_time()
    decide(wanted, seen, NOW, Limits())
    return time.process_time() - began
