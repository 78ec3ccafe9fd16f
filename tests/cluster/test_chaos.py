"""A short run of `make chaos`: twenty kills, and faults that last a third as long."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import pytest

from tests.cluster.chaos import run
from tests.slurm_cluster import SlurmCluster

pytestmark = [pytest.mark.cluster, pytest.mark.proof]

KILLS = 20
SECONDS = 240.0
SEED = 20
HASTE = 3.0


def test_killed_at_random_while_all_around_breaks(slurm_cluster: SlurmCluster) -> None:
    folder = Path(tempfile.mkdtemp(prefix="af-test-"))
    findings = run(folder / "system", slurm_cluster, SEED, KILLS, SECONDS, haste=HASTE)
    told = f"{findings.table()}\nlogs and database: {folder}"
    assert findings.clean, told
    assert findings.kills.total() >= KILLS, told
    assert findings.faults.total() >= 5, told
    shutil.rmtree(folder)
