"""Jobs that somebody else tells to end, and a node that is taken out of service: no client sees anything of it."""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.load import Clients
from tests.cluster.system import System, running, wait_for
from tests.slurm_cluster import SlurmCluster

pytestmark = pytest.mark.cluster

NAME = "interrupted"
PACE = 0.05
"""Seconds a word of an answer."""


@pytest.fixture(scope="module")
def system(slurm_cluster: SlurmCluster, apptainer: str) -> Iterator[System]:
    folder = Path(tempfile.mkdtemp(prefix="af-test-"))
    with running(System(folder, slurm_cluster, apptainer)) as system:
        yield system
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def key(system: System) -> str:
    key = system.create(name=NAME, replicas=2, extra_args=["--token-delay", str(PACE)])
    wait_whole(system, key)
    return key


def serving(system: System, key: str) -> dict[int, dict[str, Any]]:
    """Return by replica what is open, ready and does not drain."""
    rows = (row for row in system.attempts(key) if row["closed_at"] is None and row["draining_since"] is None)
    return {row["replica"]: row for row in rows if row["ready_at"] is not None and row["unready_since"] is None}


def wait_whole(system: System, key: str, replaced: str = "") -> None:
    """Wait until both replicas serve, and nothing is left of what was replaced."""

    def is_whole() -> bool:
        left = {row["token"] for row in system.attempts(key) if row["gone_at"] is None}
        known = system.client.get(f"/v1/models/{NAME}").json().get("ready_replicas")
        return set(serving(system, key)) == {0, 1} and len(left) == 2 and replaced not in left and known == 2

    wait_for(is_whole, "both replicas serve", story=lambda: system.story(key))


def hand_overs(system: System, key: str, reason: str) -> list[str]:
    """Return the events that tell of successors opened for this reason."""
    query = "SELECT message FROM events WHERE service_id = ? AND reason = 'SuccessorOpened' ORDER BY id"
    return [row["message"] for row in system.sql(query, key) if f"({reason})" in row["message"]]


def asked_enough(clients: Clients) -> bool:
    counts = Counter(request.kind for request in list(clients.ended))
    return len(counts) == 4 and min(counts.values()) >= 3


def test_a_job_that_is_told_to_end_finishes_what_it_has(system: System, key: str) -> None:
    told = serving(system, key)[0]
    with Clients([system.url], NAME) as clients:
        wait_for(lambda: asked_enough(clients), "clients are answered")
        system.slurm("scancel", "--signal=TERM", "--full", str(told["job_id"]))
        wait_whole(system, key, told["token"])
        answered = len(clients.ended)
        wait_for(lambda: len(clients.ended) > answered + 20, "clients are answered")
    assert [str(request) for request in clients.ended if request.error] == []
    assert len(hand_overs(system, key, "Interrupted")) == 1, system.story(key)
    old, new = (
        row for row in system.attempts(key) if row["replica"] == 0 and row["incarnation"] >= told["incarnation"]
    )
    assert old["draining_since"] is not None
    assert new["intent_at"] <= old["closed_at"], "its end was not waited for"
    assert (new["failures"], new["faults"]) == (0, 0)


def test_a_node_that_is_drained_is_left_before_it_ends_anything(system: System, key: str) -> None:
    told = serving(system, key)[1]
    (node,) = (job["node"] for job in system.jobs("RUNNING") if job["name"] == told["token"])
    with Clients([system.url], NAME) as clients:
        wait_for(lambda: asked_enough(clients), "clients are answered")
        try:
            system.slurm("scontrol", "update", f"nodename={node}", "state=drain", "reason=maintenance")
            wait_whole(system, key, told["token"])
            answered = len(clients.ended)
            wait_for(lambda: len(clients.ended) > answered + 20, "clients are answered")
        finally:
            system.cluster.resume_nodes()
    assert [str(request) for request in clients.ended if request.error] == []
    assert hand_overs(system, key, "NodeDrains")
    (old,) = (row for row in system.attempts(key) if row["token"] == told["token"])
    assert old["outcome"] == "Superseded"
    assert node not in {job["node"] for job in system.jobs("RUNNING") if f"-{key}-" in job["name"]}
