"""Kill storms in a job: whatever of it is killed, nothing answers in its engine's place, and nothing of it lives on.

All but the engine at one blow, where Slurm does not see it: tests/cluster/test_killed_together.py.
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Iterator

import pytest

from tests.cluster.processes import Process, job, kill_together, listening, processes, wrapper
from tests.cluster.system import System, wait_for
from tests.networks import add_recipe, require_networks

pytestmark = pytest.mark.attacks

PROMPT = "a word for the engine alone"
Parts = dict[str, set[int]]


@pytest.fixture(scope="module", params=["on a socket", "in a network of its own"])
def chat(system: System, request: pytest.FixtureRequest) -> Iterator[str]:
    if request.param == "on a socket":
        recipe = "inference/vllm_dummy"
    else:
        require_networks()
        recipe = add_recipe(system.folder / "recipes", "private")
    key = system.create(recipe, name="chat", model="dummy")
    yield key
    system.delete(key)


def parts_of(system: System, token: str) -> tuple[Parts, dict[int, Process]]:
    """Return the processes of a job by what they are: its wrapper, door, guards, and all of its engine."""
    among = processes()
    run_dir = system.folder / "run"
    whole, head = job(run_dir, token, among), wrapper(run_dir, token, among)
    (first,) = head
    doors = {pid for pid in whole if "door" in among[pid].arguments}
    guards = {pid for pid in whole - head if among[pid].arguments == among[first].arguments}
    parts = {"wrapper": head, "door": doors, "guards": guards, "engine": whole - head - doors - guards}
    return parts, among


def is_alive(process: Process) -> bool:
    found = processes().get(process.pid)
    return found is not None and found.born == process.born


def answers(system: System, port: int) -> bool:
    """Whether anything listens there."""
    with socket.socket() as asking:
        return asking.connect_ex(("127.0.0.1", port)) == 0


STORMS: dict[str, Callable[[Parts], set[int]]] = {
    "wrapper": lambda parts: parts["wrapper"],
    "door": lambda parts: parts["door"],
    "engine": lambda parts: parts["engine"],
    "guards, then the wrapper": lambda parts: parts["guards"],
    "all": lambda parts: set().union(*parts.values()),
}


@pytest.mark.parametrize("storm", STORMS)
def test_nothing_of_it_lives_and_nothing_answers_in_its_place(system: System, chat: str, storm: str) -> None:
    system.wait_status(chat, "running")
    before = system.open_attempt(chat)
    parts, among = parts_of(system, before["token"])
    assert all(parts.values()), {name: [among[pid].arguments for pid in pids] for name, pids in parts.items()}
    whole = [among[pid] for pids in parts.values() for pid in pids]
    ports = {port for _, _, port in listening([process.pid for process in whole])}
    assert {port for port in ports if answers(system, port)} == {before["port"]}
    kill_together(STORMS[storm](parts))
    if storm == "guards, then the wrapper":
        assert PROMPT in system.prompt(chat, PROMPT)["response"], "it serves on without them"
        for pid in parts["wrapper"]:
            os.kill(pid, signal.SIGKILL)
    left: list[Process] = []

    def is_over() -> bool:
        left[:] = filter(is_alive, whole)
        return not left

    wait_for(is_over, "all of it has ended", 30, lambda: "\n".join(map(str, left)))
    assert not answers(system, before["port"])
    wait_for(lambda: system.attempts(chat)[-1]["token"] != before["token"], "it is replaced",
             story=lambda: system.story(chat))  # fmt: skip
    (ended,) = [attempt for attempt in system.attempts(chat) if attempt["token"] == before["token"]]
    assert ended["closed_at"] is not None
