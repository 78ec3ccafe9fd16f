"""The life of services on a real Slurm: from a declaration to an answer, and to nothing left."""

from __future__ import annotations

import json
import signal

import pytest

from tests.cluster.system import PATIENCE, System, command_lines, wait_for

pytestmark = pytest.mark.cluster


def test_create_prompt_logs_delete(system: System) -> None:
    key = system.create(name="first", model="tiny")
    assert system.status(key) in ("pending", "building", "starting", "running")
    service = system.wait_status(key, "running")
    assert service["name"] == "first"
    assert service["config"] == {"model": "tiny", "nodes": 1}

    answer = system.prompt(key, "hello there")
    assert answer["success"] is True
    assert answer["response"] == "[tiny] echo: hello there"
    assert system.client.get("/api/v1/vllm/first/models").json()["models"] == ["tiny"]

    logs = system.client.get(f"/api/v1/services/{key}/logs").json()["logs"]
    assert "=== SLURM STDOUT" in logs
    assert "Application startup complete" in logs

    attempt = system.open_attempt(key)
    folder = next((system.folder / "run").glob(f"*/{key}/{attempt['token']}"))
    assert folder.stat().st_mode & 0o077 == 0
    system.delete(key)
    assert system.status(key) == "cancelled"
    assert not system.running_of(key)
    assert not (folder / "params.json").exists(), "the secret is removed with the job"


def test_the_secret_is_nowhere_to_be_seen(system: System) -> None:
    key = system.create()
    system.wait_status(key, "running")
    attempt = system.open_attempt(key)
    folder = next((system.folder / "run").glob(f"*/{key}/{attempt['token']}"))
    secret = system.secret_of(attempt["token"])
    assert not (folder / "params.json").exists(), "it is removed as soon as the job has read it"
    seen = [system.slurm("scontrol", "show", "job", str(attempt["job_id"])), system.story(key)]
    seen += [p.read_text(errors="replace") for p in (folder / "stdout.log", folder / "stderr.log")]
    seen += command_lines()
    seen += [p.read_bytes().decode(errors="replace") for p in (system.folder / "state").glob("ai-factory.db*")]
    assert not any(secret in text for text in seen)
    system.delete(key)


def test_two_services_on_one_node_answer_for_themselves(system: System) -> None:
    extra = {"resources": {"extra_options": ["--nodelist=node1"]}}
    keys = [system.create(model=model, **extra) for model in ("red", "blue")]
    for key in keys:
        system.wait_status(key, "running")
    ports = {system.open_attempt(key)["port"] for key in keys}
    nodes = {system.open_attempt(key)["node"] for key in keys}
    assert len(ports) == 2
    assert nodes == {"node1"}
    for key, model in zip(keys, ("red", "blue"), strict=True):
        assert system.prompt(key, "who?")["response"] == f"[{model}] echo: who?"
    for key in keys:
        system.delete(key)


def test_three_replicas_and_scaling(system: System) -> None:
    key = system.create(replicas=3)
    wait_for(lambda: system.service(key)["ready_replicas"] == 3, "three are ready", PATIENCE, lambda: system.story(key))
    assert len(system.running_of(key)) == 3
    routed = {system.prompt(key, str(n))["routed_to"] for n in range(12)}
    assert len(routed) > 1

    system.sql("UPDATE services SET replicas = 1 WHERE id = ?", key)
    wait_for(lambda: len(system.running_of(key)) == 1, "one is left", PATIENCE, lambda: system.story(key))
    assert [a["outcome"] for a in system.attempts(key)].count("ScaledDown") == 2
    assert system.status(key) == "running"
    system.delete(key)


def test_a_changed_service_is_rolled_out(system: System) -> None:
    key = system.create(model="old")
    system.wait_status(key, "running")
    system.sql("UPDATE services SET config = json_set(config, '$.model', 'new') WHERE id = ?", key)
    wait_for(
        lambda: system.status(key) == "running" and system.prompt(key, "x").get("response") == "[new] echo: x",
        "the new model answers",
        PATIENCE,
        lambda: system.story(key),
    )
    ended = [["Superseded", None]]
    wait_for(lambda: [a["outcome"] for a in system.attempts(key)] in ended, "the old one ends", PATIENCE)
    system.delete(key)


def test_a_job_that_ends_by_itself(system: System) -> None:
    key = system.create("simple/hello", greeting="Good morning")
    system.wait_status(key, "completed")
    logs = system.client.get(f"/api/v1/services/{key}/logs").json()["logs"]
    assert "Good morning from" in logs
    assert [a["outcome"] for a in system.attempts(key)] == ["Completed"]
    system.delete(key)


CHATTY = """
name: chatty
category: simple
description: Writes more than a log may hold, and once that was rotated some more.
version: 1.0.0
kind: job
program: [python3, -c]
command:
  - |
    import time
    for number in range(12000):
        print(number, "x" * 90, flush=number % 100 == 0)
    time.sleep(8)
    print(12000, flush=True)
resources: {nodes: 1, cpu: 1, memory: 256M, gpu: 0, time_limit: 5}
"""


def test_a_log_is_rotated_under_who_writes_and_who_follows_it(system: System) -> None:
    (system.folder / "recipes" / "simple").mkdir()
    (system.folder / "recipes" / "simple" / "chatty.yaml").write_text(CHATTY)
    key = system.create("simple/chatty")
    wait_for(lambda: system.attempts(key), "there is an attempt")
    text = ""
    with system.client.stream("GET", f"/api/v1/services/{key}/logs?follow=true") as stream:
        for line in stream.iter_lines():
            if line.startswith("data: ") and '"stdout"' in line:
                text += json.loads(line.removeprefix("data: ")).get("text", "")
            if line == "event: over":
                break
    assert [int(line.split()[0]) for line in text.splitlines()] == list(range(12001))
    folder = system.job_folder(system.attempts(key)[0]["token"])
    before = (folder / "stdout.log.1").read_text()
    assert 900_000 < len(before) <= 1_000_000
    assert before + (folder / "stdout.log").read_text() == text
    assert system.status(key) == "completed"


def test_the_controller_ends_within_five_seconds_and_no_model_notices(system: System) -> None:
    key = system.create()
    system.wait_status(key, "running")
    before = system.open_attempt(key)
    assert system.kill("controller", signal.SIGTERM) < 5
    assert system.prompt(key, "still there?")["success"] is True
    assert system.client.post("/api/v1/services", json={"recipe_name": "simple/hello"}).status_code == 200
    system.start("controller")
    wait_for(lambda: system.sql("SELECT count(*) FROM attempts")[0][0] >= 2, "the second service is taken up")
    after = system.open_attempt(key)
    assert (after["token"], after["job_id"]) == (before["token"], before["job_id"])
    assert system.prompt(key, "and now?")["success"] is True
    system.delete(key)
