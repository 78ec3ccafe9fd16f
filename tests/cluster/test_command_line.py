"""The command line on a real Slurm: what it waits for is so, a restart is one, and the doctor tells the truth."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from tests.cluster.system import System

pytestmark = pytest.mark.cluster

ROLLOUT = ("services", "rollout")


def run(system: System, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a command line on the system's host."""
    command = [sys.executable, "-m", "api.cli", "--config", str(system.config), *words]
    return subprocess.run(command, check=False, timeout=150, capture_output=True, text=True, cwd=system.folder)


def doctor(system: System, *flags: str) -> dict[str, Any]:
    """Return the checks by name."""
    return {result["name"]: result for result in json.loads(run(system, "doctor", "-o", "json", *flags).stdout)}


def test_a_restart_launches_every_replica_anew(system: System) -> None:
    words = ("inference/vllm_dummy", "--name", "again", "--replicas", "2", "--set", "model=tiny")
    created = run(system, "services", "create", *words, "--wait", "-o", "json")
    assert created.returncode == 0, created.stderr
    assert "✓ again  is running" in created.stderr
    key = json.loads(created.stdout)["id"]
    assert run(system, "services", "wait", "again").returncode == 0
    before = {attempt["token"] for attempt in system.attempts(key)}
    restarted = run(system, "services", "restart", "again", "--wait")
    assert restarted.returncode == 0, restarted.stderr
    attempts = json.loads(run(system, "services", "history", "again", "-o", "json").stdout)
    assert {one["token"]: one["outcome"] for one in attempts if one["token"] in before} == dict.fromkeys(
        before, "Superseded"
    )
    assert sorted(one["replica"] for one in attempts if one["state"] == "ready") == [0, 1]
    asked = run(system, "prompt", "again", "hello there", "--stream")
    assert (asked.returncode, asked.stdout) == (0, "[tiny] echo: hello there\n"), asked.stderr
    goes_back(system)
    assert run(system, "services", "delete", "again", "--wait").returncode == 0
    assert not system.running_of(key)


def goes_back(system: System) -> None:
    """A change to what never answers fails, what ran before serves on, and a script undoes it by the exit code."""
    assert run(system, *ROLLOUT, "pause", "again").returncode == 0
    system.sql("UPDATE services SET config = json_set(config, '$.exit_after', 0) WHERE name = 'again'")
    late = run(system, *ROLLOUT, "status", "again", "--wait", "--timeout", "3")
    assert (late.returncode, "Its rollout is paused" in late.stderr) == (6, True), late.stderr
    assert run(system, *ROLLOUT, "resume", "again").returncode == 0
    failed = run(system, *ROLLOUT, "status", "again", "--watch")
    assert (failed.returncode, "does not come to run what is wanted" in failed.stderr) == (1, True), failed.stderr
    undone = run(system, *ROLLOUT, "undo", "again", "--wait", "-o", "json")
    assert undone.returncode == 0, undone.stderr
    rollout = json.loads(undone.stdout)
    assert (rollout["state"], rollout["updated_replicas"]) == ("complete", 2)
    assert [one["state"] for one in rollout["attempts"]] == ["ready", "ready"]
    assert run(system, "prompt", "again", "hello there").stdout == "[tiny] echo: hello there\n"


def test_all_is_well_with_a_cluster_as_it_should_be(system: System) -> None:
    found = doctor(system)
    assert {name: result["message"] for name, result in found.items() if result["state"] == "failed"} == {}
    for name in ("Slurm's version", "partition is open", "run_dir seen by jobs", "clock of the node", "Python in jobs",
                 "Apptainer in jobs", "user namespaces in jobs", "networks of jobs", "room for temporary files",
                 "ports of the nodes", "API", "controller"):  # fmt: skip
        assert found[name]["state"] == "ok", found[name]


def test_a_partition_that_is_down_is_found(system: System) -> None:
    partition = doctor(system, "--no-job")["partition"]["message"].rpartition(" ")[2]
    system.cluster.run("scontrol", "update", f"PartitionName={partition}", "State=DOWN")
    try:
        assert "is DOWN" in doctor(system, "--no-job")["partition is open"]["message"]
    finally:
        system.cluster.run("scontrol", "update", f"PartitionName={partition}", "State=UP")
