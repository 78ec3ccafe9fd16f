"""Changes of a service under load: by hand-over, back again, to what can't start, and to fewer replicas."""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from pathlib import Path

import pytest

from tests.cluster.endurance import run, table
from tests.cluster.endured import REPLICAS, SURGE
from tests.cluster.system import System
from tests.slurm_cluster import SlurmCluster

pytestmark = [pytest.mark.cluster, pytest.mark.proof]

HOUR = 60
"""Minutes: no job comes to its time limit here."""
MOST_JOBS = {
    "update": REPLICAS + SURGE,
    "undo": REPLICAS + SURGE,
    "bad-update": REPLICAS + SURGE,
    "scale-down": REPLICAS,
}
"""By phase."""


def test_changes_fail_no_request(slurm_cluster: SlurmCluster, apptainer: str) -> None:
    folder = Path(tempfile.mkdtemp(prefix="af-test-"))
    outcomes = run(System(folder, slurm_cluster, apptainer), MOST_JOBS, limits=0, time_limit=HOUR)
    told = f"{table(outcomes)}\nlogs and database: {folder}"
    assert [line for outcome in outcomes for line in outcome.wrong] == [], told
    assert {outcome.name: outcome.most_jobs for outcome in outcomes} == MOST_JOBS, told
    assert [len(outcome.hand_overs) for outcome in outcomes] == [REPLICAS, REPLICAS, 0, 0], told
    assert all(outcome.requests for outcome in outcomes), told
    asked = Counter(request.kind for outcome in outcomes for request in outcome.requests)
    assert min(asked["short"], asked["short, openai"]) > 50, told
    assert min(asked["stream"], asked["stream, openai"]) > 10, told
    shutil.rmtree(folder)
