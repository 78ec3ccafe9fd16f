"""A node on which nothing starts, on a real Slurm: jobs are kept off it, and people are told."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.system import PATIENCE, System, running, wait_for
from tests.slurm_cluster import SlurmCluster

pytestmark = pytest.mark.cluster

BAD = "node1"
PROLOGUE = f"[ $SLURMD_NODENAME != {BAD} ] || exit 7"


@pytest.fixture(scope="module")
def ailing(slurm_cluster: SlurmCluster, apptainer: str) -> Iterator[System]:
    """An installation whose jobs fail on one node, the first that Slurm chooses."""
    folder = Path(tempfile.mkdtemp(prefix="af-test-"))
    system = System(folder, slurm_cluster, apptainer)
    system.configure("log_megabytes = 1", f'log_megabytes = 1\nprologue = "{PROLOGUE}"')
    with running(system) as system:
        yield system
    shutil.rmtree(folder)


def test_a_node_on_which_nothing_starts_is_left_out(ailing: System) -> None:
    keys = [ailing.create(), ailing.create(startup_delay=0.1)]
    for key in keys:
        ailing.wait_status(key, "running")
    outcomes = [(a["node"], a["outcome"]) for key in keys for a in ailing.attempts(key)]
    failed = [node for node, outcome in outcomes if outcome == "PrologueFailed"]
    assert set(failed) == {BAD}
    assert 3 <= len(failed) < 10, "neither was given up"
    assert all(node != BAD for node, outcome in outcomes if outcome is None)
    told = ailing.sql("SELECT message FROM events WHERE reason = 'NodesExcluded'")
    assert told
    assert f"kept off {BAD} until" in told[0][0]

    ailing.kill("controller")
    ailing.start("controller")
    third = ailing.create(startup_delay=0.2)
    ailing.wait_status(third, "running")
    assert [a["outcome"] for a in ailing.attempts(third)] == [None], "the next term knows it too"
    for key in (*keys, third):
        ailing.delete(key)


def test_a_queued_job_may_be_let_onto_it_again(ailing: System) -> None:
    """As operation.md says."""
    held = ailing.slurm("sbatch", "--parsable", "--hold", f"--exclude={BAD}", "--wrap=true").strip()
    ailing.slurm("scontrol", "update", f"JobId={held}", "ExcNodeList=")
    wait_for(lambda: "ExcNodeList=(null)" in ailing.slurm("scontrol", "show", "job", held), "it may", PATIENCE, str)
    ailing.slurm("scancel", held)
