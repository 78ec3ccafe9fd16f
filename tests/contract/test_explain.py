"""`explain` and `replay`, as commands, on both databases: what is seen is told, and nothing is touched."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from backends import Backend

from api.cli.main import main
from api.contract.configuration import load
from api.contract.database import Database
from api.contract.settings import Settings
from controller.commands.explain import UnknownServiceError, explain
from controller.commands.explanation import text
from controller.core.attempt import Attempt

RECIPE = """
name: tool
category: simple
description: For tests.
version: 1.0.0
image: /images/tool.sif
program: [tool]
command: ["x"]
"""
SQUEUE = """#!/bin/sh
[ ! -e "$(dirname "$0")/silent" ] || { echo "error: Unable to contact slurm controller" >&2; exit 1; }
for word; do case $word in --format=*) echo "${word#*=}" ;; esac; done
"""
"""Its header is the format itself."""
TABLES = ("attempts", "endpoints", "service_status", "events", "leases", "services")


@pytest.fixture
def slurm(tmp_path: Path) -> Path:
    """Slurm's commands, that note what they are asked; squeue lists no job, the others refuse."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("squeue", "sacct", "sinfo", "sbatch", "scancel", "scontrol"):
        body = SQUEUE if name == "squeue" else "#!/bin/sh\nexit 1\n"
        note = f'echo {name} >>"$(dirname "$0")/asked"\n'
        (folder / name).write_text(body.replace("\n", "\n" + note, 1))
        (folder / name).chmod(0o755)
    return folder


@pytest.fixture
def settings(tmp_path: Path, backend: Backend, slurm: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    recipes = tmp_path / "recipes" / "simple"
    recipes.mkdir(parents=True)
    (recipes / "tool.yaml").write_text(RECIPE)
    values = {
        "STATE_DIR": tmp_path / "state", "RUN_DIR": tmp_path / "run", "RECIPES": recipes.parent,
        "DATABASE_URL": backend.url, "SLURM_BIN_DIR": slurm,
    }  # fmt: skip
    for name, value in values.items():
        monkeypatch.setenv(f"AI_FACTORY_{name}", str(value))
    monkeypatch.setenv("HOME", str(tmp_path))
    return load()


@pytest.fixture
async def service(backend: Backend) -> str:
    await backend.run("INSERT INTO services (id, name, recipe_name) VALUES ('one', 'chat', 'simple/tool')")
    return "one"


async def attempt(backend: Backend) -> Attempt:
    """An attempt whose job was started five minutes ago."""
    (row,) = await backend.run("SELECT id FROM installation")
    token, now = f"af-{row[0]}-one-0-1", time.time()
    await backend.run(
        "INSERT INTO attempts (token, service_id, replica, incarnation, lane, generation, digest, failures, intent_at,"
        f" job_id, message) VALUES ('{token}', 'one', 0, 1, 'main', 1, 'd', 0, {now - 300}, 501, '')"
    )
    return Attempt(
        token=token, service_id="one", replica=0, incarnation=1, generation=1, digest="d", intent_at=0, job_id=501
    )


async def state(backend: Backend, settings: Settings) -> Any:
    rows = [sorted(await backend.run(f"SELECT * FROM {table}"), key=str) for table in TABLES]
    return rows, settings.state_dir.exists(), sorted(settings.run_dir.rglob("*"))


async def test_a_new_service(
    database: Database, backend: Backend, settings: Settings, slurm: Path, service: str
) -> None:
    before = await state(backend, settings)
    told = await explain(settings, "chat")
    assert await state(backend, settings) == before
    assert set((slurm / "asked").read_text().split()) <= {"squeue", "sinfo", "sacct"}
    (action,) = told.plan.actions
    assert action.token.endswith("-one-0-1")
    said = text(told)
    for part in (
        "chat (one), generation 1", "1 of simple/tool", "no controller has ever led", "the cluster, read",
        "no controller has looked at it yet", "submit af-", "open the attempt af-", "Submitting",
        "nothing of this is done",
    ):  # fmt: skip
        assert part in said, said
    assert "can't be read" not in said


async def test_a_silent_slurm(
    database: Database, backend: Backend, settings: Settings, slurm: Path, service: str
) -> None:
    (slurm / "silent").touch()
    told = await explain(settings, "one")
    assert (told.seen.snapshot, told.plan.actions) == (None, ())
    assert told.seen.reading_failure is not None
    assert "the cluster can't be read" in text(told)


async def test_lanes_and_what_happens_when_a_job_ends(
    database: Database, backend: Backend, settings: Settings, service: str
) -> None:
    await attempt(backend)
    now = time.time()
    await backend.run(
        f"UPDATE attempts SET lane = 'b', beside = 'TimeLimit', ends_at = {now + 605}, started_at = {now - 290},"
        f" ready_at = {now - 280}",
        "UPDATE services SET rollout_paused = 1",
    )
    said = text(await explain(settings, "chat"))
    assert "lane b, opened beside the other one: TimeLimit" in said
    assert "its job ends in 10 min; handed over before it: its successor is due in" in said
    assert "gets the requests" in said
    assert "its rollout is paused" in said
    await backend.run(f"UPDATE attempts SET draining_since = {time.time() - 65}")
    said = text(await explain(settings, "chat"))
    assert "draining for 6" in said
    assert "ended once nothing is in flight" in said


async def test_an_attempt_its_files_and_the_leader(
    database: Database, backend: Backend, settings: Settings, service: str
) -> None:
    made = await attempt(backend)
    folder = settings.run_dir / made.token.split("-")[1] / "one" / made.token
    folder.mkdir(parents=True)
    (folder / "claim").write_text('{"job_id": 501}')
    (folder / "state.json").write_text('{"step": "serving\\u001b[31m", "port": 8000}')
    (folder / "exit.json").write_text('{"code": 3, "reason": "EngineExited", "message": "out of luck"}')
    await backend.run(f"INSERT INTO leases VALUES ('controller', 7, 'me', 'login1', 3, {time.time() - 2})")
    told = await explain(settings, "chat")
    said = text(told)
    for part in (
        "the leader: login1, epoch 7, last heartbeat ", f"Attempt {made.token}", "intent 5 min ago", "job 501",
        "no job of it is on the cluster", "claim 0", "claimed by job 501", "port 8000", "3, EngineExited: out of luck",
        "would become outcome: nothing", "change the attempt", "What the leader has sent",
    ):  # fmt: skip
        assert part in said, said
    assert "\x1b" not in said
    await backend.run(f"UPDATE leases SET renewed_at = {time.time() - 500}")
    assert "no leader. The last one: login1, epoch 7, last heartbeat 8 min ago; it does not answer" in text(
        await explain(settings, "chat")
    )
    await backend.run("UPDATE leases SET holder = NULL")
    assert "it gave the lease up" in text(await explain(settings, "chat"))


@pytest.mark.parametrize(
    ("claim", "said"),
    [
        ('{"job_id": 501}', "claimed by job 501"),
        ('{"revoked": true}', "its claim is revoked"),
        ("", "claimed, but the claim can't be read"),
    ],
)
async def test_who_has_the_claim(
    database: Database, backend: Backend, settings: Settings, service: str, claim: str, said: str
) -> None:
    made = await attempt(backend)
    folder = settings.run_dir / made.token.split("-")[1] / "one" / made.token
    folder.mkdir(parents=True)
    (folder / "claim").write_text(claim)
    (line,) = (line for line in text(await explain(settings, "chat")).splitlines() if "files: " in line)
    assert f", {said}" in line


async def test_a_service_that_is_not_there(database: Database, settings: Settings) -> None:
    with pytest.raises(UnknownServiceError):
        await explain(settings, "nobody")


async def test_a_deleted_one_is_found_by_its_id(
    database: Database, backend: Backend, settings: Settings, service: str
) -> None:
    await backend.run("DELETE FROM services WHERE id = 'one'")
    assert "it is stopped, or deleted" in text(await explain(settings, "one"))
    with pytest.raises(UnknownServiceError):
        await explain(settings, "chat")


def test_the_commands(
    backend: Backend, settings: Settings, service: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["explain", "chat", "-o", "json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["desired"]["name"], told["plan"]["actions"][0]["kind"], told["leader"]) == ("chat", "submit", None)
    assert main(["explain", "chat"]) == 0
    assert "Now the controller would:" in capsys.readouterr().out
    assert main(["explain", "nobody"]) == 5
    assert "services list" in capsys.readouterr().err
    assert main(["controller", "replay", str(tmp_path / "nothing")]) == 1
    assert "can't be read" in capsys.readouterr().err
