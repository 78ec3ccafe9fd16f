"""A short run of `make chaos`: twenty kills and each fault that is quick, within the suite's time."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import pytest

from tests.cluster.chaos import run
from tests.slurm_cluster import SlurmCluster

pytestmark = pytest.mark.cluster

KILLS = 20
SECONDS = 90.0
SEED = 20


def test_killed_at_random_while_all_around_breaks(slurm_cluster: SlurmCluster) -> None:
    folder = Path(tempfile.mkdtemp(prefix="af-test-"))
    findings = run(folder / "system", slurm_cluster, SEED, KILLS, SECONDS)
    print(findings.table())
    assert findings.clean, f"{findings.table()}\nlogs and database: {folder}"
    assert findings.kills.total() >= KILLS / 2
    assert findings.faults.total() >= 3
    shutil.rmtree(folder)
