"""From the end of a job to the sbatch of its replacement, on a real Slurm, with controllers that have come to rest."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from api.contract.identity import new_id
from bench.figures import Table, median, percentile
from bench.installation import Installation, Site
from tests.cluster.system import wait_for

INSTALLATIONS = 10
"""Each with one service: readings are rare only where nothing else changes."""
ROUNDS = 2
REST = 22.0
"""Seconds after which a controller reads the cluster as rarely as it ever does (2, 4, 8, 15 s)."""

NO_BACKOFF = "backoff_first = 0\nquick_end = 0"
INSERT = "INSERT INTO services (id, recipe_name) VALUES (?, 'inference/vllm_dummy')"

Ending = Callable[[Installation, dict[str, object]], float]


def measure(site: Site) -> Table:
    """Return the table."""
    installations: list[Installation] = []
    endings: dict[str, Ending] = {"the engine is killed": _kill, "scancel": _cancel}
    try:
        for number in range(INSTALLATIONS):
            folder = site.folder / f"replace-{number}"
            installation = Installation(folder, site.cluster, bin_dir=site.bin_dir, controller=NO_BACKOFF)
            installations.append(installation)
            installation.sql(INSERT, new_id())
            installation.start("controller")
        found: dict[str, list[float]] = {name: [] for name in endings}
        with ThreadPoolExecutor(INSTALLATIONS) as pool:
            for turn in range(ROUNDS):
                # Half of them one way, half the other; then the other way round.
                chosen = [list(endings)[(number + turn) % 2] for number in range(INSTALLATIONS)]
                delays = pool.map(lambda i, name: _replace(i, site, endings[name]), installations, chosen)
                for name, delay in zip(chosen, delays, strict=True):
                    found[name].append(delay)
        return _table(found)
    finally:
        for installation in installations:
            installation.close()


def _replace(installation: Installation, site: Site, end: Ending) -> float:
    """Let a service come to rest, end its job; return the seconds until the sbatch of the next one."""
    wait_for(lambda: installation.sql("SELECT 1 FROM endpoints WHERE state = 'ready'"), "it is ready")
    time.sleep(REST + random.uniform(0, 10))
    (attempt,) = installation.sql("SELECT * FROM attempts WHERE closed_at IS NULL")
    before = set(site.submissions())
    ended = end(installation, dict(attempt))
    mark = f"-{attempt['service_id']}-"

    def next_one() -> list[float]:
        return [s.began for token, s in site.submissions().items() if mark in token and token not in before]

    return wait_for(next_one, "it is replaced")[0] - ended


def _kill(installation: Installation, attempt: dict[str, object]) -> float:
    script = str(installation.folder).encode()
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if any(word.startswith(script) and word.endswith(b"vllm_dummy_engine.py") for word in words):
            ended = time.time()
            os.kill(int(path.parent.name), signal.SIGKILL)
            return ended
    raise AssertionError(f"no engine of {attempt['token']}")


def _cancel(installation: Installation, attempt: dict[str, object]) -> float:
    ended = time.time()
    installation.slurm("scancel", str(attempt["job_id"]))
    return ended


def _table(found: dict[str, list[float]]) -> Table:
    table = Table(
        "End of a job to the sbatch of its replacement", ("how it ends", "ends", "median s", "p99 s", "max s")
    )
    for name, delays in found.items():
        cells = (median(delays), percentile(delays, 0.99), max(delays))
        table.add(name, str(len(delays)), *(f"{value:.2f}" for value in cells))
    table.notes += [
        "Everything at its default (health checks every 10 s, readings every 15 s at rest) but the back-off, which is "
        "off: it adds 2 to 2.5 s after a first failure such as a killed engine, and nothing after a scancel.",
        "From the signal, or from the call of scancel: the engine's own end is in it.",
    ]
    return table
