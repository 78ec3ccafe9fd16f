"""One installation for all tests of a file, on the cluster that all share."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.system import System, running
from tests.slurm_cluster import SlurmCluster


@pytest.fixture(scope="module")
def system(slurm_cluster: SlurmCluster, apptainer: str) -> Iterator[System]:
    folder = Path(tempfile.mkdtemp(prefix="af-test-"))
    with running(System(folder, slurm_cluster, apptainer)) as system:
        yield system
    shutil.rmtree(folder)


@pytest.fixture(autouse=True)
def whole_cluster(slurm_cluster: SlurmCluster) -> Iterator[None]:
    """Start again whatever a test has left broken."""
    yield
    slurm_cluster.repair()
