"""Successors that have no room beside what serves: with `update.no_room: shrink` no client sees anything of it."""

from __future__ import annotations

import getpass
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.load import Clients
from tests.cluster.squeue_watch import SqueueWatch, most_at_once
from tests.cluster.system import System, running, wait_for
from tests.slurm_cluster import SlurmCluster

pytestmark = pytest.mark.cluster

REPLICAS = 2
QOS = "pair"
"""Lets as many jobs of a user run at a time as there are replicas."""
PACE = 0.05
"""Seconds a word of an answer."""
CEILING = f"""
[quota]
gpus_per_service = {REPLICAS}
"""


@pytest.fixture(scope="module")
def system(slurm_cluster: SlurmCluster, apptainer: str) -> Iterator[System]:
    folder = Path(tempfile.mkdtemp(prefix="af-test-"))
    slurm_cluster.run("sacctmgr", "-i", "-Q", "add", "qos", QOS, f"MaxJobsPerUser={REPLICAS}")
    slurm_cluster.run("sacctmgr", "-i", "-Q", "modify", "user", getpass.getuser(), "set", f"qos+={QOS}")
    system = System(folder, slurm_cluster, apptainer, CEILING)
    system.configure("[controller]", "[controller]\ndrain_most = 15")
    with running(system):
        yield system
    shutil.rmtree(folder)


def start(system: System, name: str, **resources: Any) -> str:
    """Create a service that may be smaller meanwhile, and wait until it is whole."""
    arguments = ["--token-delay", str(PACE)]
    update = {"no_room": "shrink"}
    key = system.create(name=name, replicas=REPLICAS, resources=resources, extra_args=arguments, update=update)
    wait_for(lambda: system.known_replicas(name) == REPLICAS, f"{name} serves", story=lambda: system.story(key))
    return key


def outcomes(system: System, key: str) -> Counter[tuple[int, str]]:
    """Count how the attempts of each replica have ended."""
    return Counter((row["replica"], row["outcome"]) for row in system.attempts(key) if row["outcome"])


def see_it_shrink(system: System, key: str, name: str, outcome: str) -> None:
    """Wait until each replica has ended so, and is there again; meanwhile one is missing at most."""
    smallest = REPLICAS

    def is_over() -> bool:
        nonlocal smallest
        smallest = min(smallest, system.known_replicas(name))
        ended = outcomes(system, key)
        return all(ended[replica, outcome] for replica in range(REPLICAS)) and system.known_replicas(name) == REPLICAS

    wait_for(is_over, f"each replica has ended as {outcome}", story=lambda: system.story(key))
    assert smallest == REPLICAS - 1


def test_time_limits_where_slurm_lets_no_successor_run_beside_them(system: System) -> None:
    key = start(system, "limited", qos=QOS, time_limit=2)
    with Clients([system.url], "limited") as clients, SqueueWatch(system) as watch:
        see_it_shrink(system, key, "limited", "MadeRoom")
    assert [str(request) for request in clients.ended if request.error] == [], system.story(key)
    # Where both successors wait, the room that one replica made may be given to the other's, which then hands over.
    assert {outcome for _, outcome in outcomes(system, key)} <= {"MadeRoom", "Superseded"}, system.story(key)
    assert any("PENDING" in reading.jobs.values() for reading in watch.readings), "its successors had room"
    assert min(Counter(request.kind for request in clients.ended).values()) >= 3
    system.delete(key)


def test_a_change_where_a_ceiling_of_ours_leaves_no_room(system: System) -> None:
    key = start(system, "changed", gpu=1)
    with Clients([system.url], "changed") as clients, SqueueWatch(system) as watch:
        wait_for(lambda: len(clients.ended) > 20, "clients are answered")
        words = {"config": {"extra_args": ["--token-delay", str(PACE / 2)]}}
        assert system.client.patch(f"/api/v1/services/{key}", json=words).status_code == 200
        see_it_shrink(system, key, "changed", "Outdated")
    assert [str(request) for request in clients.ended if request.error] == [], system.story(key)
    assert {outcome for _, outcome in outcomes(system, key)} == {"Outdated"}
    assert most_at_once(watch.readings) == REPLICAS
    system.delete(key)
