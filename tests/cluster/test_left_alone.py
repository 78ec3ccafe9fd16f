"""An engine whose wrapper and guard are killed at one blow: nothing of ours can end it, and Slurm does not see it.

Its job is over by its node's own word, and it answers on. As long as it does, its replica gets no second engine.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.engines import RECIPE, Journal
from tests.cluster.processes import engines, kill, kill_together, processes, wrappers
from tests.cluster.system import PATIENCE, System, running, wait_for
from tests.slurm_cluster import SlurmCluster

pytestmark = pytest.mark.cluster

LONG_ENOUGH = 30.0
"""Seconds in which it would have been replaced: the next listing, accounting's grace of 20 s at most, a job's start."""


@pytest.fixture
def installation(slurm_cluster: SlurmCluster) -> Iterator[System]:
    folder = Path(tempfile.mkdtemp(prefix="af-test-"))
    system = System(folder, slurm_cluster, "apptainer")
    Journal(system)
    with running(system):
        yield system
    shutil.rmtree(folder)


def test_it_gets_no_second_one_beside_it_until_it_is_ended(installation: System) -> None:
    system = installation
    run_dir = system.folder / "run"
    key = system.create(RECIPE)
    system.wait_status(key, "running")
    (alone,) = engines(run_dir)
    kill_together(wrappers(run_dir, alone.token, processes()))
    wait_for(lambda: not system.running_of(key), "its job is over", PATIENCE, lambda: system.story(key))
    until = time.monotonic() + LONG_ENOUGH
    while time.monotonic() < until:
        assert [engine.pid for engine in engines(run_dir)] == [alone.pid], system.story(key)
        time.sleep(0.5)
    assert kill(alone)
    wait_for(lambda: len(engines(run_dir)) == 1, "it is replaced", PATIENCE, lambda: system.story(key))
    system.wait_status(key, "running")
    system.delete(key)
