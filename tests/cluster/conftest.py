"""One installation for all tests of a file, on the cluster that all share.

Where workers share the tests (pytest -n), each has a cluster of its own, and a file stays together.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.system import System, running
from tests.slurm_cluster import SlurmCluster

LONG = ("test_pages.py", "test_failpoints.py", "test_two_controllers.py", "test_failures.py")
"""They come first, so that no worker is left with one of them at the end."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: LONG.index(item.path.name) if item.path.name in LONG else len(LONG))


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
    if slurm_cluster.touched:
        slurm_cluster.repair()
