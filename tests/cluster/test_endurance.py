"""Services that outlive their jobs: a short run of `make endurance`, of two time limits."""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from pathlib import Path

import pytest

from tests.cluster.endurance import run, table
from tests.cluster.endured import REPLICAS
from tests.cluster.system import System
from tests.slurm_cluster import SlurmCluster

pytestmark = pytest.mark.cluster

LIMITS = 2


def test_no_request_fails_over_time_limits(slurm_cluster: SlurmCluster, apptainer: str) -> None:
    folder = Path(tempfile.mkdtemp(prefix="af-test-"))
    (outcome,) = run(System(folder, slurm_cluster, apptainer), ["time-limits"], LIMITS)
    told = f"{table([outcome])}\nlogs and database: {folder}"
    assert not outcome.wrong, told
    assert not outcome.failed, told
    assert len(outcome.hand_overs) >= LIMITS * REPLICAS, told
    asked = Counter(request.kind for request in outcome.requests)
    assert min(asked["short"], asked["short, openai"]) > 50, told
    assert min(asked["stream"], asked["stream, openai"]) > 10, told
    shutil.rmtree(folder)
