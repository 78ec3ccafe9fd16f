"""What a config says chooses no program on a node, and reads no file of the installation's."""

from __future__ import annotations

import base64
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.cluster.system import System

pytestmark = pytest.mark.attacks

RECIPE = """
name: bare
category: values
description: Tells its environment, and fails.
version: 1.0.0
kind: job
program: [python3, -c]
command: ["import os, sys; sys.exit(os.environ.get('TOLD', 'nothing was told'))"]
resources: {cpu: 1, memory: 256M, time_limit: 5}
restart: {max_failures: 1}
"""
LINES = ("CanaryOfTheFirstLine", "CanaryOfTheSecondLine", "CanaryOfTheThirdLine")


@pytest.fixture(scope="module")
def recipe(system: System) -> Iterator[str]:
    folder = system.folder / "recipes" / "values"
    folder.mkdir()
    (folder / "bare.yaml").write_text(RECIPE)
    yield "values/bare"


@pytest.mark.parametrize("name", ["PATH", "PYTHONPATH", "LD_PRELOAD", "BASH_ENV"])
@pytest.mark.parametrize("table", ["environment", "environment_from"])
def test_no_variable_chooses_what_is_run_on_a_node(system: System, recipe: str, table: str, name: str) -> None:
    config = {table: {name: "/home/neighbour/bin"}}
    answer = system.client.post("/api/v1/services", json={"recipe_name": recipe, "config": config})
    assert answer.status_code == 422
    assert [wrong["loc"] for wrong in answer.json()["detail"]] == [["body", "config", table, name]]


def told(system: System, key: str) -> dict[str, bytes]:
    """Return all that anybody is told of a service: what lies in files, what REST and the command line say."""
    paths = [f"/api/v1/services/{key}", *(f"/api/v1/services/{key}/{part}" for part in ("logs", "events", "attempts"))]
    found = {path: system.client.get(path).content for path in [*paths, "/api/v1/services"]}
    for words in (["services", "describe", key], ["explain", key], ["services", "history", key]):
        command = [sys.executable, "-m", "api.cli", "--config", str(system.config), *words]
        done = subprocess.run(command, check=False, timeout=60, capture_output=True, cwd=system.folder)
        found[" ".join(words)] = done.stdout + done.stderr
    files = [system.folder / f"{name}.log" for name in ("api", "controller")]
    files += [p for p in (system.folder / "run").rglob("*") if p.is_file() and key in str(p)]
    return found | {str(path): path.read_bytes() for path in files}


def forms(secret: bytes) -> set[bytes]:
    """Return how a secret's bytes might be written, whole or by a part of them."""
    parts = {secret[start : start + 8] for start in range(0, len(secret) - 7, 4)}
    lossy = {part.decode("utf-8", "replace").encode() for part in parts}
    return parts | lossy | {part.hex().encode() for part in parts} | {base64.b64encode(secret)[:20]}


@pytest.mark.parametrize("way", ["as it is", "by a link", "by another name"])
def test_no_file_of_the_installation_is_a_secret_of_a_service(system: System, recipe: str, way: str) -> None:
    own = system.folder / "state" / "installation.key"
    named = own
    if way != "as it is":
        named = system.folder / f"named {way}"
        named.symlink_to(own) if way == "by a link" else os.link(own, named)
    key = system.create(recipe, environment_from={"TOLD": str(named)})
    system.wait_status(key, "failed")
    (attempt,) = system.attempts(key)
    assert attempt["outcome"] == "SecretMissing"
    assert "is the installation's own" in system.service(key)["message"]
    wanted = forms(own.read_bytes())
    assert [where for where, text in told(system, key).items() if any(form in text for form in wanted)] == []
    system.delete(key)


@pytest.mark.parametrize("name", ["state/ai-factory.db", "state"])
def test_nor_is_its_database_or_a_folder(system: System, recipe: str, name: str) -> None:
    key = system.create(recipe, environment_from={"TOLD": str(system.folder / name)})
    system.wait_status(key, "failed")
    assert [attempt["outcome"] for attempt in system.attempts(key)] == ["SecretMissing"]
    assert not [where for where, text in told(system, key).items() if b"SQLite format" in text]
    system.delete(key)


def test_no_line_of_a_secret_stands_in_a_message(system: System, recipe: str) -> None:
    """The engine ends with it as its last words; its log is its own affair, and all else is not."""
    secret = system.folder / "lines"
    secret.touch(mode=0o600)
    secret.write_text("\n".join(LINES) + "\n")
    key = system.create(recipe, environment_from={"TOLD": str(secret)})
    system.wait_status(key, "failed")
    folder = system.job_folder(system.attempts(key)[0]["token"])
    assert LINES[0] in (folder / "stderr.log").read_text(), "it was given the secret"
    logs = {f"/api/v1/services/{key}/logs", *map(str, folder.glob("std*.log*"))}
    found = {where: text for where, text in told(system, key).items() if where not in logs}
    assert len(found) > 8
    assert [where for where, text in found.items() if any(line.encode() in text for line in LINES)] == []
    database = (system.folder / "state").glob("ai-factory.db*")
    assert not [path for path in database if any(line.encode() in path.read_bytes() for line in LINES)]
    system.delete(key)
