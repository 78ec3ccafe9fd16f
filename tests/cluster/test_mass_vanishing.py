"""slurmctld comes back without its state, and all engines have ended with their wrappers: nobody can say that they did.

The listing alone is not believed, and accounting can't be asked. That the engines are silent ends the doubt.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.engines import RECIPE, Journal
from tests.cluster.processes import engines, kill_together, processes, wrappers
from tests.cluster.system import PATIENCE, System, running, wait_for
from tests.slurm_cluster import SlurmCluster

pytestmark = pytest.mark.cluster

REPLICAS = 6
DAEMONS = ("slurmdbd", "slurmctld", *(f"slurmd-node{number}" for number in range(1, 5)))


@pytest.fixture
def installation(slurm_cluster: SlurmCluster) -> Iterator[System]:
    folder = Path(tempfile.mkdtemp(prefix="af-test-"))
    system = System(folder, slurm_cluster, "apptainer", f"doubt_grace = {10 * PATIENCE}\n")
    Journal(system)
    with running(system):
        yield system
    shutil.rmtree(folder)


def test_engines_that_are_silent_are_replaced_although_nobody_says_that_they_ended(installation: System) -> None:
    system = installation
    run_dir = system.folder / "run"
    key = system.create(RECIPE, replicas=REPLICAS)
    wait_for(lambda: ready(system, key) == REPLICAS, "all are ready", PATIENCE, lambda: system.story(key))
    before = {attempt["token"] for attempt in system.attempts(key)}
    for daemon in DAEMONS:
        system.cluster.control("kill", daemon)
    alive = processes()
    doomed = {engine.pid for engine in engines(run_dir, alive)}
    for token in before:
        doomed |= wrappers(run_dir, token, alive)
    kill_together(doomed)
    shutil.rmtree(system.cluster.folder / "state")
    (system.cluster.folder / "state").mkdir()
    for daemon in reversed(DAEMONS[1:]):
        system.cluster.control("start", daemon)
    wait_for(lambda: "MassVanishing" in reasons(system, key), "it is doubted", PATIENCE, lambda: system.story(key))
    wait_for(lambda: ready(system, key) == REPLICAS, "all are ready again", PATIENCE, lambda: system.story(key))
    ended = [attempt for attempt in system.attempts(key) if attempt["token"] in before]
    assert {attempt["outcome"] for attempt in ended} == {"Vanished"}
    assert len(engines(run_dir)) == REPLICAS
    system.delete(key)


def ready(system: System, key: str) -> int:
    service = system.service(key)
    return int(service["ready_replicas"]) if service["status"] == "running" else 0


def reasons(system: System, key: str) -> set[str]:
    return {row["reason"] for row in system.sql("SELECT reason FROM events WHERE service_id = ?", key)}
