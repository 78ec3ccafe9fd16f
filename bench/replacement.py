"""From the end of a job to the sbatch of its replacement, on a real Slurm, with controllers that have come to rest.

Beside Slurm's own floor: a loop of squeue that sees the same job end could submit at that moment, and no sooner.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from api.contract.identity import new_id
from bench.figures import Table, median, percentile
from bench.installation import Installation, Site
from tests.cluster.system import wait_for

INSTALLATIONS = 10
"""Each with one service: readings are rare only where nothing else changes."""
ROUNDS = 3
REST = 22.0
"""Seconds after which a controller reads the cluster as rarely as it ever does (2, 4, 8, 15 s)."""

NO_BACKOFF = "backoff_first = 0\nquick_end = 0"
INSERT = "INSERT INTO services (id, recipe_name) VALUES (?, 'inference/vllm_dummy')"

Ending = Callable[[Installation, dict[str, object]], float]
LIVES = {"RUNNING", "COMPLETING"}
LOOP = 0.05
"""Seconds between two looks of the floor's loop."""
ADDED_MEDIAN, ADDED_P99 = 0.5, 2.0


@dataclass(frozen=True)
class Delay:
    """Of one replacement, seconds after the end began."""

    sbatch: float
    floor: float

    @property
    def added(self) -> float:
        """By us."""
        return self.sbatch - self.floor


def measure(site: Site) -> Table:
    """Return the table."""
    installations: list[Installation] = []
    endings: dict[str, Ending] = {
        "the engine is killed": _kill,
        "the wrapper is killed": _kill_wrapper,
        "scancel": _cancel,
    }
    try:
        for number in range(INSTALLATIONS):
            folder = site.folder / f"replace-{number}"
            installation = Installation(folder, site.cluster, bin_dir=site.bin_dir, controller=NO_BACKOFF)
            installations.append(installation)
            installation.sql(INSERT, new_id())
            installation.start("controller")
        found: dict[str, list[Delay]] = {name: [] for name in endings}
        with ThreadPoolExecutor(INSTALLATIONS) as pool:
            for turn in range(ROUNDS):
                # A third of them each way; then another way.
                chosen = [list(endings)[(number + turn) % len(endings)] for number in range(INSTALLATIONS)]
                delays = pool.map(lambda i, name: _replace(i, site, endings[name]), installations, chosen)
                for name, delay in zip(chosen, delays, strict=True):
                    found[name].append(delay)
        return _table(found)
    finally:
        for installation in installations:
            installation.close()


def _replace(installation: Installation, site: Site, end: Ending) -> Delay:
    """Let a service come to rest, end its job, and wait for the sbatch of the next one."""
    wait_for(lambda: installation.sql("SELECT 1 FROM endpoints WHERE state = 'ready'"), "it is ready")
    time.sleep(REST + random.uniform(0, 10))
    (attempt,) = installation.sql("SELECT * FROM attempts WHERE closed_at IS NULL")
    before = set(site.submissions())
    ended = end(installation, dict(attempt))
    floor = _seen_to_end(installation, int(attempt["job_id"]))
    mark = f"-{attempt['service_id']}-"

    def next_one() -> list[float]:
        return [s.began for token, s in site.submissions().items() if mark in token and token not in before]

    return Delay(wait_for(next_one, "it is replaced")[0] - ended, floor - ended)


def _seen_to_end(installation: Installation, job: int) -> float:
    """Return when a loop of squeue sees that the job has ended, Unix seconds."""
    while installation.slurm("squeue", "-h", "-t", "all", "-j", str(job), "-o", "%T").strip() in LIVES:
        time.sleep(LOOP)
    return time.time()


def _kill(installation: Installation, _: dict[str, object]) -> float:
    return _kill_it(installation, lambda words: any(word.endswith(b"vllm_dummy_engine.py") for word in words))


def _kill_wrapper(installation: Installation, attempt: dict[str, object]) -> float:
    folder = str(attempt["token"]).encode()
    return _kill_it(
        installation, lambda ws: any(w.endswith(b".pyz") for w in ws) and any(w.endswith(folder) for w in ws)
    )


def _kill_it(installation: Installation, is_it: Callable[[list[bytes]], bool]) -> float:
    """Kill the oldest process of an installation's job that is it."""
    mine = str(installation.folder).encode()
    for path in sorted(Path("/proc").glob("[0-9]*/cmdline"), key=lambda path: int(path.parent.name)):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if any(word.startswith(mine) for word in words) and is_it(words):
            ended = time.time()
            os.kill(int(path.parent.name), signal.SIGKILL)
            return ended
    raise AssertionError("there is no such process")


def _cancel(installation: Installation, attempt: dict[str, object]) -> float:
    ended = time.time()
    installation.slurm("scancel", str(attempt["job_id"]))
    return ended


def _table(found: dict[str, list[Delay]]) -> Table:
    table = Table(
        "End of a job to the sbatch of its replacement",
        ("how it ends", "ends", "median s", "p99 s", "floor, median s", "added, median s", "added, p99 s"),
    )
    for name, delays in found.items():
        whole, floor, added = ([getattr(d, part) for d in delays] for part in ("sbatch", "floor", "added"))
        cells = (median(whole), percentile(whole, 0.99), median(floor), median(added), percentile(added, 0.99))
        table.add(name, str(len(delays)), *(f"{value:.2f}" for value in cells))
        table.goal(f"{name}: added, median", median(added), ADDED_MEDIAN, "s")
        table.goal(f"{name}: added, p99", percentile(added, 0.99), ADDED_P99, "s")
    table.notes += [
        "Everything at its default (health checks every 10 s, readings every 15 s at rest) but the back-off, which is "
        "off: it adds 2 to 2.5 s after a first failure such as a killed engine, and nothing after a scancel.",
        "From the signal, or from the call of scancel: the engine's own end is in it. The floor: when a loop of squeue "
        f"every {LOOP * 1000:.0f} ms sees that the job has ended.",
    ]
    return table
