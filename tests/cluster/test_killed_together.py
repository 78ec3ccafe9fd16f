"""An engine whose wrapper, guards and door are killed at one blow, where Slurm does not see it: the kernel ends it."""

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


@pytest.fixture
def journal(slurm_cluster: SlurmCluster) -> Iterator[Journal]:
    folder = Path(tempfile.mkdtemp(prefix="af-test-"))
    system = System(folder, slurm_cluster, "apptainer")
    journal = Journal(system)
    with running(system):
        yield journal
    shutil.rmtree(folder)


def test_it_ends_with_them_and_is_replaced_once(journal: Journal) -> None:
    system = journal.system
    run_dir = system.folder / "run"
    key = system.create(RECIPE)
    system.wait_status(key, "running")
    (alone,) = engines(run_dir)
    kill_together(wrappers(run_dir, alone.token, processes()))
    wait_for(lambda: alone.pid not in processes(), "it has ended", 5.0, lambda: system.story(key))
    wait_for(lambda: len(engines(run_dir)) == 1, "it is replaced", PATIENCE, lambda: system.story(key))
    system.wait_status(key, "running")
    assert journal.doubles() == []
    system.delete(key)
