"""Doors and the keys that they are made under, on a real Slurm: rotated, lost and found again, and no job restarts."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.cluster.system import PATIENCE, System, wait_for

pytestmark = pytest.mark.cluster

DRAIN_MOST = 300
"""Seconds: the setting's default."""
PAGES = """
name: pages
category: simple
description: An engine that says nothing of what is in flight.
version: 1.0.0
program: [python3, -m, http.server]
command: [--bind, "{host}", "{port}"]
ports: [8000]
exposed: true
resources: {nodes: 1, cpu: 1, memory: 256M, gpu: 0, time_limit: 1:00:00}
health_check: {endpoint: /, interval: 2, timeout: 5, retries: 3, startup_timeout: 120}
"""


def command(system: System, *words: str) -> str:
    argv = [sys.executable, "-m", "api.cli", "--config", str(system.config), *words]
    return subprocess.run(argv, check=True, timeout=120, capture_output=True, text=True, cwd=system.folder).stdout


def test_keys_are_rotated_lost_and_found_again_and_no_job_restarts(system: System) -> None:
    key = system.create(name="behind")
    system.wait_status(key, "running")
    (first,) = system.attempts(key)
    assert first["door"] is not None
    assert system.service(key)["endpoint"].endswith("/services/behind")
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


def test_the_door_tells_when_an_engine_has_drained_that_does_not_count(system: System) -> None:
    (system.folder / "recipes" / "simple").mkdir(exist_ok=True)
    (system.folder / "recipes" / "simple" / "pages.yaml").write_text(PAGES)
    key = system.create("simple/pages", "pages", replicas=2)
    wait_for(lambda: system.service(key)["ready_replicas"] == 2, "two are ready", PATIENCE, lambda: system.story(key))
    secret = system.client.post("/api/v1/keys", json={"name": "reader", "scopes": ["infer"]}).json()["secret"]
    headers = {"Authorization": f"Bearer {secret}"}
    for _ in range(20):
        assert system.client.get("/services/pages/", headers=headers).status_code == 200
    system.sql("UPDATE services SET replicas = 1 WHERE id = ?", key)
    wait_for(lambda: system.attempts(key)[1]["closed_at"], "one has drained", PATIENCE, lambda: system.story(key))
    surplus = system.attempts(key)[1]
    assert surplus["outcome"] == "ScaledDown"
    assert 0 < surplus["closed_at"] - surplus["draining_since"] < DRAIN_MOST / 2
    assert system.client.get("/services/pages/", headers=headers).status_code == 200
    system.delete(key)
