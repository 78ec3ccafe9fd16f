"""An engine gone bad answers without end, in bombs and in floods: nobody else notices, and no program grows."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import product

import httpx
import pytest

from tests.cluster.processes import forget_most_memory, memory, most_memory
from tests.cluster.system import ROOT, System, wait_for

pytestmark = pytest.mark.attacks

RECIPE = """
name: engine
category: evil
description: Answers as a prompt tells it to.
version: 1.0.0
engine: vllm
program: [python3, "{files}/evil_engine.py"]
command: ["{socket}", "{turned}"]
model: evil
ports: [8000]
files: [evil_engine.py]
parameters:
  turned: {type: list, default: []}
resources: {cpu: 1, memory: 512M, time_limit: 30}
health_check: {endpoint: /health, interval: 1, timeout: 5, retries: 3, startup_timeout: 120}
stop_grace: 1
"""
MODES = ("endless", "zipped", "headers", "hints", "long_event", "events", "figures", "labels", "lists", "deep", "lie")
AT_ONCE = 3
MEMORY = 1.5
"""Times the memory of a calm program."""
SECONDS = 10.0
"""In which others are answered, on a busy machine."""
PATIENCE = 3.0
"""Seconds for which an answer without end is read."""
CHAT = "/v1/chat/completions"


@pytest.fixture(scope="module")
def chat(system: System) -> Iterator[str]:
    """The operator's own service, which goes on answering."""
    folder = system.folder / "recipes" / "evil"
    folder.mkdir()
    (folder / "engine.yaml").write_text(RECIPE)
    (folder / "evil_engine.py").write_text((ROOT / "tests" / "evil_engine.py").read_text())
    key = system.create(name="chat", model="dummy")
    system.wait_status(key, "running")
    yield key
    system.delete(key)


@pytest.fixture(scope="module")
def evil(system: System, chat: str) -> Iterator[str]:
    key = system.create("evil/engine", name="evil")
    system.wait_status(key, "running")
    yield key
    system.delete(key)


@contextmanager
def others_are_answered(system: System, chat: str) -> Iterator[None]:
    """Ask for the API's health and prompt the operator's service meanwhile; none may fail or wait."""
    over = threading.Event()
    waits: list[float] = []
    failures: list[str] = []

    def ask() -> None:
        with httpx.Client(base_url=system.url, timeout=60, trust_env=False) as client:
            while not over.wait(0.2):
                began = time.monotonic()
                health = client.get("/health")
                answer = client.post(f"/api/v1/vllm/{chat}/prompt", json={"prompt": "hello"})
                waits.append(time.monotonic() - began)
                if health.status_code != 200 or answer.json().get("success") is not True:
                    failures.append(health.text + answer.text)

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        yield
        wait_for(lambda: len(waits) > 3, "others have asked")
    finally:
        over.set()
        asking.join()
    assert failures == []
    assert max(waits) < SECONDS


@contextmanager
def stays_small(system: System, *programs: str) -> Iterator[None]:
    """Hold the most memory that programs take meanwhile against what they took before."""
    calm = {name: memory(system.pid(name)) for name in programs}
    for name in programs:
        forget_most_memory(system.pid(name))
    yield
    grown = {name: most_memory(system.pid(name)) / calm[name] for name in programs}
    assert [name for name, times in grown.items() if times > MEMORY] == [], grown


def answered(system: System, key: str) -> set[str]:
    """Return which paths its engine has answered in which of its ways."""
    log = system.job_folder(system.open_attempt(key)["token"]) / "stdout.log"
    return set(log.read_text().split())


def read(system: System, key: str, mode: str, query: str) -> int:
    """Have it answer a prompt in its way; read that for a while, and go. Return the status."""
    asked = {"prompt": f"TURN {CHAT}={mode}"}
    end = time.monotonic() + PATIENCE
    with system.client.stream("POST", f"/api/v1/vllm/{key}/prompt{query}", json=asked) as answer:
        for _ in answer.iter_raw():
            if time.monotonic() > end:
                break
    return answer.status_code


def test_whatever_it_answers_to_prompts(system: System, chat: str, evil: str) -> None:
    assert system.prompt(evil, "hello")["response"] == "heard"
    with stays_small(system, "api"), others_are_answered(system, chat), ThreadPoolExecutor(AT_ONCE) as pool:
        for query, mode in product(("", "?stream=true"), MODES):
            codes = pool.map(lambda _: read(system, evil, mode, query), range(AT_ONCE))  # noqa: B023
            assert set(codes) == {200}
    assert answered(system, evil) == {f"{CHAT}={mode}" for mode in MODES}


@pytest.mark.parametrize("path", ["/metrics", "/v1/models"])
def test_whatever_it_tells_of_itself(system: System, chat: str, evil: str, path: str) -> None:
    asked = {"/metrics": f"/api/v1/services/{evil}/metrics", "/v1/models": f"/api/v1/vllm/{evil}/models"}[path]
    with stays_small(system, "api"), others_are_answered(system, chat), ThreadPoolExecutor(AT_ONCE) as pool:
        for mode in MODES:
            system.client.post(f"/api/v1/vllm/{evil}/prompt", json={"prompt": f"TURN {path}={mode} {CHAT}=lie"})
            answers = list(pool.map(lambda _: system.client.get(asked, timeout=60), range(AT_ONCE)))
            assert {answer.status_code for answer in answers} <= {200, 502, 503, 504}
    assert answered(system, evil) >= {f"{path}={mode}" for mode in MODES}


def test_whatever_it_answers_to_probes(system: System, chat: str) -> None:
    """One that has never told its model as it should is not ready; and whoever looks after all of them goes on."""
    before = system.open_attempt(chat)["token"]
    calm = system.sql("SELECT renewals FROM leases")[0][0]
    with stays_small(system, "controller"), others_are_answered(system, chat):
        keys = [
            system.create("evil/engine", turned=[f"{path}={mode}"])
            for path in ("/health", "/v1/models")
            for mode in ("endless", "zipped", "headers", "hints")
        ]
        wait_for(lambda: all(any(one["serving_at"] for one in system.attempts(key)) for key in keys), "they serve")
        wait_for(lambda: system.sql("SELECT renewals FROM leases")[0][0] > calm + 12, "the controller is at work")
    assert {system.status(key) for key in keys} <= {"starting", "running", "unhealthy", "pending"}
    assert system.open_attempt(chat)["token"] == before
    for key in keys:
        system.client.delete(f"/api/v1/services/{key}")
    for key in keys:
        system.wait_gone(key)
