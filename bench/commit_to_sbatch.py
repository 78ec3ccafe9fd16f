"""From the commit of a new service to its sbatch: REST and SQL, the real controller, a real Slurm."""

from __future__ import annotations

import json
import random
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

from api.contract.identity import new_id
from bench.figures import Table, median, ms, percentile
from bench.installation import Installation, Site, Submission
from tests.cluster.system import wait_for

ALONE = 60
BY_SQL = 40
AT_ONCE = 20
BURSTS = 3

INSERT = "INSERT INTO services (id, recipe_name, config) VALUES (?, 'simple/hello', ?)"
QUEUED = {"resources": {"partition": "down"}}
"""Jobs wait in the queue, so that they take nothing of this machine, as jobs of a real cluster would not."""


def measure(site: Site) -> Table:
    """Return the table."""
    installation = Installation(site.folder / "commit", site.cluster, bin_dir=site.bin_dir)
    installation.start()
    try:
        installation.create("simple/hello")  # the first one finds everything cold
        time.sleep(3)
        groups = {
            "REST, one at a time": _one_at_a_time(installation, site, QUEUED),
            "SQL, one at a time": _by_sql(installation, site),
            f"REST, {AT_ONCE} at once": _at_once(installation, site, QUEUED),
            f"REST, {AT_ONCE} at once, whose jobs run on this machine": _at_once(installation, site, {}),
        }
        return _table(groups, _commits(installation), site.submissions())
    finally:
        with closing(installation.client):
            installation.close()


def _one_at_a_time(installation: Installation, site: Site, config: dict[str, Any]) -> list[str]:
    keys = []
    for _ in range(ALONE):
        keys.append(installation.create("simple/hello", **config))
        _wait_submitted(site, keys[-1:])
    return keys


def _by_sql(installation: Installation, site: Site) -> list[str]:
    keys = []
    for _ in range(BY_SQL):
        keys.append(new_id())
        installation.sql(INSERT, keys[-1], json.dumps(QUEUED))
        _wait_submitted(site, keys[-1:])
    return keys


def _at_once(installation: Installation, site: Site, config: dict[str, Any]) -> list[str]:
    keys: list[str] = []
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for _ in range(BURSTS):
            burst = list(pool.map(lambda _: installation.create("simple/hello", **config), range(AT_ONCE)))
            _wait_submitted(site, burst)
            keys += burst
            time.sleep(1.0)
    return keys


def _wait_submitted(site: Site, keys: list[str]) -> None:
    """Wait, then a little longer: the next commit must not fall on the beat of anything."""

    def submitted() -> bool:
        seen = {token.split("-")[2] for token in site.submissions()}
        return seen.issuperset(keys)

    wait_for(submitted, f"{keys} are submitted")
    time.sleep(random.uniform(0.05, 0.15))


def _commits(installation: Installation) -> dict[str, float]:
    """Return when each service was written: the database's own time, just before its commit."""
    return {row["id"]: row["created_at"] for row in installation.sql("SELECT id, created_at FROM services")}


def _table(groups: dict[str, list[str]], commits: dict[str, float], submissions: dict[str, Submission]) -> Table:
    table = Table("Commit to sbatch", ("how", "services", "median ms", "p99 ms", "max ms", "sbatch itself, median ms"))
    by_service = {token.split("-")[2]: sent for token, sent in submissions.items()}
    queued: list[float] = []
    for name, keys in groups.items():
        delays = [by_service[key].began - commits[key] for key in keys]
        own = [by_service[key].ended - by_service[key].began for key in keys]
        queued += [] if "jobs run" in name else delays
        table.add(
            name, str(len(keys)), ms(median(delays)), ms(percentile(delays, 0.99)), ms(max(delays)), ms(median(own))
        )
    table.goal("median, jobs queued", median(queued) * 1000, 100, "ms")
    table.goal("p99, jobs queued", percentile(queued, 0.99) * 1000, 1000, "ms")
    table.notes.append(
        "From `services.created_at`, just before the commit, to the first line of a shell around sbatch."
    )
    return table
