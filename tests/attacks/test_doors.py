"""Engines on a shared node: another user takes ports, dies for them, knocks; he gets no prompt and no secret."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from api.contract.certificates import Authority
from api.contract.job.tls import server_name
from tests.attacks.neighbour import READER, SQUATTER, STRANGER, UID, Neighbour
from tests.cluster.processes import job, listening
from tests.cluster.system import System, wait_for

pytestmark = pytest.mark.attacks

PROMPT = "a word for the engine alone"


@pytest.fixture(scope="module")
def chat(system: System) -> Iterator[str]:
    """A service whose engine is ready."""
    key = system.create(name="chat", model="dummy")
    system.wait_status(key, "running")
    yield key
    system.delete(key)


def door_of(system: System, key: str) -> int:
    return int(system.open_attempt(key)["port"])


def processes_of(system: System, key: str) -> list[int]:
    return sorted(job(system.folder / "run", system.open_attempt(key)["token"]))


def test_no_port_is_named_in_a_command_line(system: System, chat: str) -> None:
    lines = [Path(f"/proc/{pid}/cmdline").read_text().split("\0") for pid in processes_of(system, chat)]
    assert any("--uds" in words for words in lines), "the engine is among them"
    assert not [words for words in lines if "--port" in words or str(door_of(system, chat)) in words]


def test_only_the_door_listens(system: System, chat: str) -> None:
    found = listening(processes_of(system, chat))
    assert {port for _, _, port in found} == {door_of(system, chat)}


@pytest.mark.parametrize("how", ["plain", "nobody", "other"])
def test_a_stranger_who_knocks_gets_no_answer(system: System, chat: str, how: str) -> None:
    theirs = Authority(os.urandom(32)).client("api")
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        (Path(folder) / "client.pem").write_text(theirs.key + theirs.certificate)
        name = server_name(system.open_attempt(chat)["token"])
        asked = Neighbour(STRANGER, str(door_of(system, chat)), how, name, folder)
        assert asked.wait() == ["ANSWER b''"]
    assert system.prompt(chat, PROMPT)["success"] is True


def test_nothing_of_a_job_can_be_read(system: System, chat: str) -> None:
    folder = system.job_folder(system.open_attempt(chat)["token"])
    processes = processes_of(system, chat)
    paths = [str(folder / name) for name in ("params.json", "state.json", "stdout.log")]
    paths += [f"/proc/{pid}/environ" for pid in processes]
    paths += [str(system.folder / "state" / name) for name in ("installation.key", "ai-factory.db")]
    said = Neighbour(READER, *paths).wait()
    assert len(said) == len(paths) + 1
    assert not [line for line in said if line.startswith("READ")]


def test_who_takes_the_port_beside_the_door_gets_nothing(system: System, chat: str) -> None:
    with Neighbour(SQUATTER, str(door_of(system, chat)), "4,6") as squatter:
        wait_for(lambda: squatter.said("ready"), "he is at work")
        for _ in range(5):
            assert PROMPT in system.prompt(chat, PROMPT)["response"]
        assert (squatter.said("TOOK"), squatter.said("MET")) == ([], [])


def test_who_takes_the_port_of_a_dead_job_gets_no_prompt_and_no_secret(system: System, chat: str) -> None:
    """Everything of the job is killed at once; he has its port a moment later, and keeps it."""
    before = system.open_attempt(chat)
    with Neighbour(SQUATTER, str(before["port"]), "4,6") as squatter:
        wait_for(lambda: squatter.said("ready"), "he is at work")
        for pid in processes_of(system, chat):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        wait_for(lambda: squatter.said("TOOK"), "he has the port")
        answers = []

        def is_replaced() -> bool:
            answers.append(system.client.post(f"/api/v1/vllm/{chat}/prompt", json={"prompt": PROMPT}).json())
            return bool(answers[-1].get("success"))

        wait_for(is_replaced, "the engine was replaced")
        assert system.open_attempt(chat)["token"] != before["token"]
        assert PROMPT in answers[-1]["response"]
        assert not [line for line in squatter.said("MET") if not line.endswith(" tls")], squatter.lines
        assert not [answer for answer in answers if "NOT THE ENGINE" in str(answer)]


def test_the_neighbour_is_nobody() -> None:
    assert os.getuid() != UID
    assert Neighbour("import os; print(os.getuid(), os.getgroups())").wait() == [f"{UID} []"]
