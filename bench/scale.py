"""What 1,000 and 10,000 services of three replicas cost the controller: a start, rest, changes, a mass failure."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.figures import Table, median, percentile
from bench.simulated import installation_at_rest, stub_engine
from tests.cluster.system import ROOT

REPLICAS = 3
TICK_GOALS = {1_000: 50, 10_000: 500}
"""Milliseconds of CPU."""
MOST_MEGABYTES = 300
SETTINGS = "submit_burst = 100000"
PATIENCE = 1800.0


def measure_thousand(folder: Path) -> Table:
    """Return the table of 1,000 services."""
    return _measure(folder, (1_000,))


def measure(folder: Path) -> Table:
    """Return the table of 1,000 and of 10,000 services; that takes ten minutes."""
    return _measure(folder, (1_000, 10_000))


def _measure(folder: Path, sizes: Sequence[int]) -> Table:
    columns = (
        "services", "what", "wall s", "CPU s", "SQL statements", "Slurm commands", "passes", "MB at its end",
    )  # fmt: skip
    table = Table(f"Scale: services of {REPLICAS} replicas, Slurm in memory", columns)
    rates = []
    for size in sizes:
        found = _run(folder / f"scale-{len(sizes)}-{size}", size)
        _rows(table, size, found)
        tick = median(found["ticks"]) * 1000
        rest = found["phases"]["rest"]
        table.notes.append(f"{size:,} services take {rest['cpu'] / rest['wall'] * 100:.1f} % of one core at rest.")
        table.goal(f"CPU of a tick with {size:,} services", tick, TICK_GOALS[size], "ms")
        rates.append(rest["commands"] * 60 / rest["wall"])
    table.goal(f"memory with {sizes[-1]:,} services, at its highest", found["peak"], MOST_MEGABYTES, "MB")
    if len(sizes) > 1:
        table.goal("commands a minute at rest, most over least", max(rates) / min(rates), 1.1, "times")
    table.notes += [
        "In one process: the controller, and with it (CPU, memory) the Slurm in memory that answers it.",
        "Start: until every service was looked at with a snapshot and nothing more was due. Rest: from one reading to "
        "the next, with health checks, of which all together are held to 500 a second.",
        "Change of one: from the commit to its scancel; what it cost until all was calm. Change of all (3 replicas to "
        "2, one transaction): until the last pass, with everything recorded, cancelled and seen to be gone.",
        "Node failure: 10 of 30 nodes; from the next beat of the readings (2 s; at rest up to 15 s may pass before it) "
        "to the last sbatch. The pace of submissions is off (submit_burst = 100000): it would let 10 a second through.",
    ]
    return table


def _run(folder: Path, size: int) -> dict[str, Any]:
    """Run one size in a process of its own."""
    with stub_engine() as port:
        installation = installation_at_rest(folder, size, port, replicas=REPLICAS, controller=SETTINGS)
        command = [sys.executable, "-m", "bench.scale_worker", str(installation.config), str(size), str(port)]
        with (folder / "worker.log").open("w") as log:
            done = subprocess.run(command, stdout=subprocess.PIPE, stderr=log, cwd=ROOT, timeout=PATIENCE, check=True)
    return dict(json.loads(done.stdout))


def _rows(table: Table, size: int, found: dict[str, Any]) -> None:
    for share, name in ((0.5, "median"), (0.95, "p95")):
        tick = f"{percentile(found['ticks'], share):.3f}"
        table.add(f"{size:,}", f"a tick, {name}", "", tick, "", "", "", "")
    for name, phase in found["phases"].items():
        counted = (f"{phase[key]:,}" for key in ("statements", "commands", "passes", "megabytes"))
        table.add(f"{size:,}", name, f"{phase['wall']:.2f}", f"{phase['cpu']:.2f}", *counted)
