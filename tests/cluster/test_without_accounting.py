"""A site that never installed accounting: exit files, probes and graces must do."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.system import PATIENCE, System, running, wait_for
from tests.slurm_cluster import bring_up

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory, apptainer: str) -> Iterator[System]:
    folder = Path(tempfile.mkdtemp(prefix="af-test-"))
    cluster_folder = tmp_path_factory.mktemp("bare")
    with (
        bring_up(cluster_folder, NODES="2", CPUS="4", MEM="4000", GPUS="0", DBD="0", MINJOBAGE="2") as cluster,
        running(System(folder, cluster, apptainer)) as system,
    ):
        yield system
    shutil.rmtree(folder)


def test_a_life_without_accounting(system: System) -> None:
    key = system.create()
    system.wait_status(key, "running")
    system.slurm("scancel", str(system.open_attempt(key)["job_id"]))
    wait_for(lambda: len(system.attempts(key)) == 2, "it is replaced", PATIENCE, lambda: system.story(key))
    system.wait_status(key, "running")
    assert len(system.running_of(key)) == 1

    # Ended, and dropped from the listing, while nobody looked: only the exit file tells.
    system.kill("controller")
    lost = system.open_attempt(key)
    system.slurm("scancel", str(lost["job_id"]))
    wait_for(lambda: not system.jobs(), "the job has left the cluster")
    wait_for(
        lambda: str(lost["job_id"]) not in system.slurm("squeue", "-h", "-t", "all", "-o", "%i").split(),
        "the listing has dropped it",
    )
    system.start("controller")
    wait_for(lambda: len(system.attempts(key)) == 3, "it is replaced", PATIENCE, lambda: system.story(key))
    system.wait_status(key, "running")
    assert len(system.running_of(key)) == 1
    system.delete(key)
    assert not system.jobs()
