"""What goes wrong on real clusters, done to a real one: nothing is lost, nothing doubled, and conditions say so."""

from __future__ import annotations

import json
import os
import signal

import pytest

from tests.cluster.processes import below, processes, wrapper
from tests.cluster.system import PATIENCE, System, wait_for

pytestmark = pytest.mark.cluster

BROKEN_RECIPE = """
name: no_image
category: broken
description: Its image does not exist.
version: 1.0.0
image: /nowhere/at/all.sif
program: [/bin/true]
restart: {max_failures: 2}
"""


def test_a_command_that_fails_is_given_up_and_says_why(system: System) -> None:
    key = system.create(exit_after=0.1, exit_code=3, startup_delay=60)
    service = system.wait_status(key, "failed")
    attempts = system.attempts(key)
    assert [a["outcome"] for a in attempts] == ["EngineExited"] * 5
    assert {a["exit_code"] for a in attempts} == {3}
    assert "5 times in a row" in service["message"]
    assert "told to end by --exit-after" in service["message"]
    assert not system.running_of(key)

    system.sql("UPDATE services SET config = '{}' WHERE id = ?", key)
    system.wait_status(key, "running")
    system.delete(key)


def test_a_bad_partition_is_refused_once_and_mended_by_a_change(system: System) -> None:
    key = system.create(resources={"partition": "nosuch"})
    service = system.wait_status(key, "failed")
    assert "partition" in service["message"].lower()
    assert [a["outcome"] for a in system.attempts(key)] == ["SubmitRejected"]

    system.sql("UPDATE services SET config = json_set(config, '$.resources.partition', 'main') WHERE id = ?", key)
    system.wait_status(key, "running")
    system.delete(key)


def test_an_image_that_does_not_exist_is_named(system: System) -> None:
    (system.folder / "recipes" / "broken").mkdir(exist_ok=True)
    (system.folder / "recipes" / "broken" / "no_image.yaml").write_text(BROKEN_RECIPE)
    key = system.create("broken/no_image")
    service = system.wait_status(key, "failed")
    assert {a["outcome"] for a in system.attempts(key)} == {"ImageFailed"}
    assert "/nowhere/at/all.sif" in service["message"]
    system.delete(key)


def test_a_job_over_its_partition_s_time_pends_with_advice(system: System) -> None:
    key = system.create(resources={"partition": "short", "time_limit": "01:00:00"})
    wait_for(
        lambda: "lower resources.time_limit" in system.service(key)["message"],
        "the advice is given",
        PATIENCE,
        lambda: system.story(key),
    )
    assert system.status(key) == "pending"
    system.delete(key)


def test_a_job_cancelled_by_hand_is_replaced(system: System) -> None:
    key = system.create()
    system.wait_status(key, "running")
    first = system.open_attempt(key)
    system.slurm("scancel", str(first["job_id"]))
    wait_for(lambda: len(system.attempts(key)) == 2, "it is replaced", PATIENCE, lambda: system.story(key))
    system.wait_status(key, "running")
    assert [a["outcome"] for a in system.attempts(key)] == ["Cancelled", None]
    system.delete(key)


def test_an_engine_that_dies_in_service_is_replaced(system: System) -> None:
    key = system.create(exit_after=6, exit_code=0)
    system.wait_status(key, "running")
    wait_for(lambda: len(system.attempts(key)) >= 2, "it is replaced", PATIENCE, lambda: system.story(key))
    assert system.attempts(key)[0]["outcome"] == "EngineExited"
    system.delete(key)


def test_a_job_requeued_by_an_administrator_never_runs_twice(system: System) -> None:
    key = system.create()
    system.wait_status(key, "running")
    first = system.open_attempt(key)
    system.slurm("scontrol", "update", f"JobId={first['job_id']}", "Requeue=1")
    system.slurm("scontrol", "requeue", str(first["job_id"]))
    wait_for(lambda: len(system.attempts(key)) == 2, "it is replaced", PATIENCE, lambda: system.story(key))
    system.wait_status(key, "running")
    second = system.open_attempt(key)
    assert system.attempts(key)[0]["outcome"] == "Requeued"
    assert second["job_id"] != first["job_id"]
    wait_for(lambda: [j["id"] for j in system.jobs()] == [second["job_id"]], "the requeued job is cleared away")
    system.delete(key)


def test_a_killed_node_s_engine_serves_on_and_is_replaced_once_it_hangs(system: System) -> None:
    """slurmd is gone, but not what it had started: nothing is gone while its own engine answers, whoever says so."""
    key = system.create()
    system.wait_status(key, "running")
    first = system.open_attempt(key)
    system.cluster.control("kill", f"slurmd-{first['node']}")

    def observed() -> str:
        conditions = {c["type"]: c for c in system.service(key)["conditions"]}
        return str(conditions["Observed"]["reason"])

    wait_for(lambda: observed() == "EngineOutlivesJob", "it is said", PATIENCE, lambda: system.story(key))
    assert [a["token"] for a in system.attempts(key)] == [first["token"]]
    assert system.status(key) == "running"
    among = processes()
    own = below(wrapper(system.folder / "run", first["token"], among), among)
    engine = [pid for pid in own if "--uds" in among[pid].arguments]
    assert engine
    for pid in engine:
        os.kill(pid, signal.SIGSTOP)
    wait_for(lambda: len(system.attempts(key)) == 2, "it is replaced", PATIENCE, lambda: system.story(key))
    system.wait_status(key, "running")
    second = system.open_attempt(key)
    assert system.attempts(key)[0]["outcome"] == "NodeFailed"
    assert second["node"] != first["node"]
    assert system.running_of(key) == [second["job_id"]]
    # Its wrapper lives: it ends the old engine by itself, before the new one begins.
    ended = json.loads((system.job_folder(first["token"]) / "exit.json").read_text())
    assert (ended["reason"], ended["at"] < second["serving_at"]) == ("SlotLost", True)
    system.delete(key)


def test_accounting_down_loses_nothing(system: System) -> None:
    key = system.create()
    system.wait_status(key, "running")
    before = system.open_attempt(key)
    system.cluster.control("stop", "slurmdbd")
    second = system.create(model="second")
    system.wait_status(second, "running")
    system.slurm("scancel", str(before["job_id"]))
    wait_for(lambda: len(system.attempts(key)) == 2, "it is replaced all the same", PATIENCE, lambda: system.story(key))
    system.cluster.control("start", "slurmdbd")
    for each in (key, second):
        system.wait_status(each, "running")
        assert len(system.running_of(each)) == 1
        system.delete(each)
