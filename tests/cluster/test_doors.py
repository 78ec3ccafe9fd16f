"""Doors and the keys that they are made under, on a real Slurm: rotated, lost and found again, and no job restarts."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.cluster.system import PATIENCE, System, wait_for

pytestmark = pytest.mark.cluster


def command(system: System, *words: str) -> str:
    argv = [sys.executable, "-m", "api.cli", "--config", str(system.config), *words]
    return subprocess.run(argv, check=True, timeout=120, capture_output=True, text=True, cwd=system.folder).stdout


def test_keys_are_rotated_lost_and_found_again_and_no_job_restarts(system: System) -> None:
    key = system.create(name="behind")
    system.wait_status(key, "running")
    (first,) = system.attempts(key)
    assert first["door"] is not None
    assert system.service(key)["endpoint"].startswith("https://")
    key_file = system.folder / "state" / "installation.key"
    before = key_file.read_bytes()

    command(system, "key", "rotate")
    rotated = key_file.read_bytes()
    assert system.prompt(key, "still there?")["success"] is True
    system.sql("UPDATE services SET replicas = 2 WHERE id = ?", key)
    wait_for(lambda: system.service(key)["ready_replicas"] == 2, "two are ready", PATIENCE, lambda: system.story(key))
    doors = {attempt["door"] for attempt in system.attempts(key)}
    assert len(doors) == 2
    assert len({system.prompt(key, str(n))["routed_to"] for n in range(12)}) == 2
    assert {one["id"] for one in json.loads(command(system, "key", "list", "-o", "json")) if one["services"]} == doors

    key_file.write_bytes(before)  # an older one is restored
    system.kill("controller")
    system.start("controller")
    wait_for(lambda: system.service(key)["ready_replicas"] == 1, "one can't be asked", PATIENCE)
    assert "which the key file does not hold" in system.service(key)["message"]
    for number in range(6):
        assert system.prompt(key, str(number))["success"] is True, "the other one is asked"

    key_file.write_bytes(rotated)
    system.kill("controller")
    system.start("controller")
    wait_for(lambda: system.service(key)["ready_replicas"] == 2, "both are ready again", PATIENCE)
    assert [attempt["outcome"] for attempt in system.attempts(key)] == [None, None]
    system.delete(key)
    wait_for(lambda: "is dropped" in command(system, "key", "prune"), "nobody needs the old key", PATIENCE)
