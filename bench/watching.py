"""10,000 doors watched from one process: what that takes, and what it does when all of them close at once."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

from api.contract.descriptors import MOST
from bench.figures import Table
from bench.simulated import stub_engine
from controller.cluster.watches import PER_SECOND
from controller.runtime.reader import AFTER_ENDS
from tests.cluster.system import ROOT

DOORS = 10_000
PROCESSES = 4
"""That the doors are spread over."""
PATIENCE = 600.0


def measure(folder: Path) -> Table:
    """Return the table."""
    with ExitStack() as stack:
        ports = [stack.enter_context(stub_engine()) for _ in range(PROCESSES)]
        command = [sys.executable, "-m", "bench.watching_worker", str(DOORS), *map(str, ports)]
        with (folder / "watching.log").open("w") as log:
            done = subprocess.run(command, stdout=subprocess.PIPE, stderr=log, cwd=ROOT, timeout=PATIENCE, check=True)
    found = json.loads(done.stdout)
    table = Table(f"Watches at {found['doors']:,} doors of {PROCESSES} processes", ("what", "wall s", "CPU s", "more"))
    for name, (wall, cpu, more) in found["phases"].items():
        table.add(name, f"{wall:.2f}", f"{cpu:.2f}", more)
    table.goal("readings that all closings cause at once", found["readings"], len(AFTER_ENDS) + 0.5, "")
    table.notes += [
        f"{PER_SECOND} doors are opened a second at most. The event loop was busy for at most "
        f"{found['stall'] * 1000:.0f} ms of CPU at a time, when all closed at once: so long a lease's renewal waits.",
        f"The process may have {found['limit']:,} descriptors (at most {MOST:,} are asked for), one a watch.",
    ]
    if found["doors"] < DOORS:
        table.notes.append(f"This machine allows no more: {DOORS:,} were meant.")
    return table
