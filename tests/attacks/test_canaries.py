"""Secrets of every kind are looked for everywhere that others, or people who only look, might see them."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from api.contract.certificates import Authority
from api.contract.doorless import secret
from tests.cluster.system import System, wait_for

pytestmark = pytest.mark.attacks

TOKEN_OF_A_HUB = "hf_CanaryOfAHub"
LINES = "CanaryFirstLine\nCanarySecondLine"


@pytest.fixture(scope="module")
def lived(system: System) -> Iterator[tuple[System, str]]:
    """An installation in which a service with secrets has lived, failed, been asked and replaced."""
    (system.folder / "hub").touch(mode=0o600)
    (system.folder / "hub").write_text(TOKEN_OF_A_HUB + "\n")
    (system.folder / "lines").touch(mode=0o600)
    (system.folder / "lines").write_text(LINES)
    files = {"HF_TOKEN": str(system.folder / "hub"), "SEVERAL_LINES": str(system.folder / "lines")}
    key = system.create(name="chat", model="dummy", environment_from=files)
    system.wait_status(key, "running")
    system.prompt(key, "hello")
    system.slurm("scancel", str(system.open_attempt(key)["job_id"]))
    wait_for(lambda: len(system.attempts(key)) > 1, "it is replaced")
    system.wait_status(key, "running")
    yield system, key
    system.delete(key)


def canaries(system: System, key: str) -> dict[str, bytes]:
    """Return what must be seen nowhere, each in the forms in which it might be."""
    installation = (system.folder / "state" / "installation.key").read_bytes()[:32]
    found = {
        "key": installation,
        "key in hex": installation.hex().encode(),
        "key in base64": base64.b64encode(installation),
        "hub": TOKEN_OF_A_HUB.encode(),
        **{f"line {number}": line.encode() for number, line in enumerate(LINES.splitlines())},
    }
    for attempt in system.attempts(key):
        token = str(attempt["token"])
        found[f"secret of {token}"] = secret(installation, token).encode()
        found[f"door of {token}"] = Authority(installation).door(token).key.split("\n")[1].encode()
    for kind in ("api", "controller", "gateway"):
        found[kind] = Authority(installation).client(kind).key.split("\n")[1].encode()
    return found


def search(where: str, text: bytes, wanted: dict[str, bytes]) -> list[str]:
    # In JSON the bytes of a PEM text stand as they are; its line ends do not.
    return [f"{name} in {where}" for name, canary in wanted.items() if canary in text]


def test_no_secret_lies_in_a_file_but_its_own(lived: tuple[System, str]) -> None:
    system, key = lived
    own = {system.folder / "state" / "installation.key", system.folder / "hub", system.folder / "lines"}
    files = [p for p in system.folder.rglob("*") if p.is_file() and not p.is_symlink() and p not in own]
    assert len(files) > 20
    assert [hit for path in files for hit in search(str(path), path.read_bytes(), canaries(system, key))] == []


def test_no_secret_is_in_a_command_line_or_in_our_programs_environment(lived: tuple[System, str]) -> None:
    system, key = lived
    hits = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            hits += search(f"argv of {process.name}", (process / "cmdline").read_bytes(), canaries(system, key))
        except OSError:
            continue
    for name in ("api", "controller"):
        environment = Path(f"/proc/{system.pid(name)}/environ").read_bytes()
        hits += search(f"environment of {name}", environment, canaries(system, key))
    assert hits == []


def test_no_secret_is_in_what_slurm_shows(lived: tuple[System, str]) -> None:
    system, key = lived
    job = str(system.open_attempt(key)["job_id"])
    shown = {
        "scontrol": system.slurm("scontrol", "show", "-dd", "job", job),
        "batch script": system.slurm("scontrol", "write", "batch_script", job, "-"),
        "squeue": system.slurm("squeue", "-o", "%all"),
    }
    assert [h for where, text in shown.items() for h in search(where, text.encode(), canaries(system, key))] == []


def test_no_secret_is_in_an_answer(lived: tuple[System, str]) -> None:
    system, key = lived
    paths = ["/health", "/api/v1/services", f"/api/v1/services/{key}", f"/api/v1/services/{key}/logs"]
    paths += [f"/api/v1/services/{key}/{part}" for part in ("attempts", "events", "conditions", "metrics", "status")]
    paths += ["/api/v1/services/targets", f"/api/v1/vllm/{key}/models", "/api/v1/nothing"]
    answers = {path: system.client.get(path).content for path in paths}
    assert [h for path, content in answers.items() for h in search(path, content, canaries(system, key))] == []


def test_no_secret_is_told_by_the_command_line(lived: tuple[System, str]) -> None:
    system, key = lived
    asked = (["config"], ["services", "describe", key], ["explain", key], ["services", "history", key], ["logs", key])
    hits, told = [], 0
    for words in asked:
        command = [sys.executable, "-m", "api.cli", "--config", str(system.config), *words]
        done = subprocess.run(command, check=False, timeout=60, capture_output=True, cwd=system.folder)
        told += done.returncode == 0
        hits += search(" ".join(words), done.stdout + done.stderr, canaries(system, key))
    assert (hits, told) == ([], len(asked))


def test_what_is_searched_for_is_found() -> None:
    assert search("a plan", json.dumps({"x": "hf_CanaryOfAHub"}).encode(), {"hub": TOKEN_OF_A_HUB.encode()}) == [
        "hub in a plan"
    ]
