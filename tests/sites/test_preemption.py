"""Sites where others' jobs take a service's nodes, with a grace; with `preempt_send_user_signal`, and without."""

from __future__ import annotations

import getpass
import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from tests.cluster.load import Clients
from tests.cluster.system import System, wait_for
from tests.sites.conftest import site

NAME = "preempted"
GRACE = 40
"""Seconds that Slurm lets a preempted job live: more than a start and a stream take."""
NODE = {"NODES": "3", "CPUS": "4"}
MORE_THAN_HALF = 3
"""Of a node's CPUs: each job has a node of its own."""
TELLS = "SlurmctldParameters=preempt_send_user_signal"
SELDOM = "12"
"""Seconds between two readings of a calm cluster: they show a preemption too, later than its job is to tell of it."""


@pytest.fixture
def system(request: pytest.FixtureRequest, apptainer: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[System]:
    if request.param == TELLS:
        monkeypatch.setenv("AI_FACTORY_CONTROLLER_SLOWEST_READING", SELDOM)
    with site(apptainer, EXTRA=request.param, **NODE) as system:
        for change in (
            f"add qos graced Priority=1 PreemptMode=cancel GraceTime={GRACE}", "modify qos high set preempt+=graced",
            f"modify user {getpass.getuser()} set qos+=graced",
        ):  # fmt: skip
            system.slurm("sacctmgr", "-i", "-Q", *change.split())
        yield system


def row_of(system: System, key: str, token: str) -> dict[str, Any]:
    (row,) = (row for row in system.attempts(key) if row["token"] == token)
    return row


def told_at(system: System, token: str) -> float | None:
    """Return when a job's wrapper heard that it is to end."""
    state = json.loads((system.job_folder(token) / "state.json").read_text())
    found: float | None = state.get("told_to_end_at")
    return found


def asked_enough(clients: Clients) -> bool:
    counts = Counter(request.kind for request in list(clients.ended))
    return len(counts) == 4 and min(counts.values()) >= 3


@pytest.mark.parametrize("system", [TELLS], indirect=True)
def test_who_is_told_gets_no_new_requests_from_that_second_on(system: System) -> None:
    old, successor = preempt(system)
    told = told_at(system, old["token"])
    assert told is not None, system.story(old["service_id"])
    assert old["draining_since"] - told < 3.5
    assert old["closed_at"] < told + GRACE, "what it had was not finished"
    assert successor["beside"] == "Interrupted"


@pytest.mark.parametrize("system", [""], indirect=True)
def test_who_is_not_told_is_replaced_before_its_new_end(system: System) -> None:
    old, successor = preempt(system)
    assert told_at(system, old["token"]) is None, "Slurm has told its script"
    assert old["ends_at"] < successor["intent_at"] + GRACE
    assert (old["outcome"], successor["beside"]) == ("Superseded", "TimeLimit")


def preempt(system: System) -> tuple[dict[str, Any], dict[str, Any]]:
    """Have another's job take the node of a replica under load, and see it replaced; no request fails.

    Return the rows of the attempt that was preempted, and of its successor.
    """
    resources = {"cpu": MORE_THAN_HALF, "qos": "graced"}
    key = system.create(name=NAME, replicas=2, resources=resources, extra_args=["--token-delay", "0.05"])
    wait_for(lambda: system.known_replicas(NAME) == 2, "both replicas serve", story=lambda: system.story(key))
    token = system.open_attempt(key)["token"]
    (node,) = (job["node"] for job in system.jobs("RUNNING") if job["name"] == token)
    with Clients([system.url], NAME) as clients:
        wait_for(lambda: asked_enough(clients), "clients are answered")
        whole_node = ("-N1", f"-n{NODE['CPUS']}", "-w", node)
        system.slurm("sbatch", "--qos=high", *whole_node, "-o", "/dev/null", "--wrap", "sleep 300")

        def is_replaced() -> bool:
            return row_of(system, key, token)["gone_at"] is not None and system.known_replicas(NAME) == 2

        wait_for(is_replaced, "it is replaced", story=lambda: system.story(key))
        answered = len(clients.ended)
        wait_for(lambda: len(clients.ended) > answered + 20, "clients are answered")
    assert [str(request) for request in clients.ended if request.error] == [], system.story(key)
    successor = row_of(system, key, token.removesuffix("1") + "2")
    assert (successor["failures"], successor["faults"]) == (0, 0)
    return row_of(system, key, token), successor
