"""Models under the gateway's address, on a real Slurm and behind real doors."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
from collections import Counter

import httpx
import pytest

from tests.cluster.processes import job
from tests.cluster.system import System, wait_for

pytestmark = pytest.mark.cluster

QUESTION = {"messages": [{"role": "user", "content": "one two"}]}


def test_a_model_answers_under_its_services_name(system: System) -> None:
    key = system.create(name="chat", model="org/some-model")
    system.wait_status(key, "running")
    wait_for(lambda: system.known_replicas("chat") == 1, "the gateway knows it")
    for name in ("chat", "org/some-model"):
        answer = system.client.post("/v1/chat/completions", json={"model": name, **QUESTION}).json()
        assert answer["choices"][0]["message"]["content"] == "[org/some-model] echo: one two"
    with system.client.stream("POST", "/v1/chat/completions", json={"model": "chat", "stream": True, **QUESTION}) as it:
        data = [line.removeprefix("data: ") for line in it.iter_lines() if line]
    assert data[-1] == "[DONE]"
    said = [json.loads(line)["choices"][0]["delta"].get("content") or "" for line in data[:-1]]
    assert "".join(said) == "[org/some-model] echo: one two"
    system.delete(key)
    wait_for(lambda: system.client.get("/v1/models/chat").status_code == 404, "the gateway has forgotten it")


def test_no_request_fails_while_a_replica_dies(system: System) -> None:
    key = system.create(name="pair", replicas=2)
    system.wait_status(key, "running")
    wait_for(lambda: system.known_replicas("pair") == 2, "the gateway knows both")
    statuses: Counter[int] = Counter()
    ends = threading.Event()

    def ask() -> None:
        with httpx.Client(base_url=system.url, trust_env=False, timeout=60) as client:
            while not ends.is_set():
                statuses[client.post("/v1/chat/completions", json={"model": "pair", **QUESTION}).status_code] += 1

    asking = [threading.Thread(target=ask) for _ in range(4)]
    for thread in asking:
        thread.start()
    try:
        wait_for(lambda: statuses[200] > 50, "requests are answered")
        for pid in job(system.folder / "run", system.open_attempt(key)["token"]):
            with contextlib.suppress(ProcessLookupError):  # some die of the others
                os.kill(pid, signal.SIGKILL)
        wait_for(lambda: system.known_replicas("pair") == 1, "the gateway has heard of it")
        answered = statuses[200]
        wait_for(lambda: statuses[200] > answered + 50, "requests are answered still")
    finally:
        ends.set()
        for thread in asking:
            thread.join()
    assert set(statuses) == {200}
    system.delete(key)
