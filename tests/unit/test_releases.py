"""What jobs of older releases write is understood, and what they read is still written: their wrappers live on.

`tests/releases/SCHEMA` holds one of each file as the release with that schema wrote it. They are never changed. A new
field is no change; one that goes away, or becomes something else, is.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import controller.wrapper.locks.volumes
from api.contract.job.parameters import Image, VolumeMount
from api.contract.launch import Health, LaunchSpec, Resources, Volume
from controller.core.attempt import Attempt
from controller.core.job_files import Held, JobExit
from controller.core.script import Site, parameters
from controller.rundir import SharedRunDirs, read_job_files
from controller.wrapper import parameters as parameters_of
from controller.wrapper.locks import claim
from controller.wrapper.locks.volumes import held
from controller.wrapper.report import Ending, FailedError, HealthVerdict, Report
from controller.wrapper.signals import Signals

RELEASES = sorted(state.parent for state in (Path(__file__).parents[1] / "releases").glob("*/state.json"))
LOCKED = [release for release in RELEASES if (release / "lock").exists()]
TOKEN = "af-z42chr-7f96e9xf-0-1"
ATTEMPT = Attempt(
    token=TOKEN, service_id="7f96e9xf", replica=0, incarnation=1, generation=1, digest="d1", intent_at=0.0
)
WRAPPERS = sorted((Path(__file__).parents[1] / "releases").glob("*/wrapper.pyz"))

every_release = pytest.mark.parametrize("release", RELEASES, ids=lambda release: release.name)
every_locked = pytest.mark.parametrize("release", LOCKED, ids=lambda release: release.name)


def spec() -> LaunchSpec:
    """A service that uses everything."""
    return LaunchSpec(
        recipe="inference/engine",
        kind="service",
        engine="vllm",
        model="m",
        image=Image(source="docker://engine"),
        command=("engine", (({"runtime": "port"}),)),
        environment={"A": "b"},
        environment_from={"TOKEN": "/secrets/token"},
        binds=("/usr:/usr:ro",),
        volumes=(Volume(target="/data", path="/shared/x", root="/shared"),),
        files={"engine.py": "pass"},
        resources=Resources(cpu=1, memory_mb=100, gpu=1, time_limit=60),
        health=Health(kind="command", command=("true",)),
        secret_variable="VLLM_API_KEY",
    )


def written(folder: Path) -> dict[str, Any]:
    """Have each file written as today; return what is in them."""
    site = Site(apptainer="apptainer", image_cache="/i", port_range=(1, 9), volumes="/v", python="python3")
    (folder / "params.json").write_text(parameters(spec(), ATTEMPT, "s", site).to_json())
    claim.take(folder, 77)
    report = Report(folder)
    report.digest = "d1"
    report.step("serving", "Application startup complete", port=8000)
    report.health(HealthVerdict(ok=True, failures=0, message="well"))
    report.end(Ending(0, "Terminated", "stopped"))
    volume = VolumeMount(source=str(folder / "volume"), target="/data", root=None)
    with held([volume], TOKEN, 77, report, Signals()):
        (folder / "lock").write_bytes((folder / "volume" / "lock.1").read_bytes())
    names = ("params.json", "claim", "state.json", "exit.json", "lock")
    return {name: json.loads((folder / name).read_text()) for name in names}


def missing(old: Any, new: Any, where: str) -> list[str]:
    """Return what is in the old, and in the new is not, or is of another type. Null may become anything."""
    if isinstance(old, dict) and isinstance(new, dict):
        free = where.endswith((".files", ".environment"))
        return [
            problem
            for key, value in old.items()
            if not free
            for problem in (missing(value, new[key], f"{where}.{key}") if key in new else [f"{where}.{key}"])
        ]
    kinds = [bool if isinstance(v, bool) else float if isinstance(v, int | float) else type(v) for v in (old, new)]
    return [where] if None not in (old, new) and kinds[0] is not kinds[1] else []


@every_release
def test_what_its_jobs_write_is_understood(release: Path) -> None:
    files = read_job_files(release)
    state = json.loads((release / "state.json").read_text())
    assert files.claim == Held(job_id=json.loads((release / "claim").read_text())["job_id"])
    assert (files.step, files.port) == ("serving", state["port"])
    assert isinstance(files.exit, JobExit)
    assert (files.exit.code, files.exit.reason) == (0, "Terminated")
    assert files.exit.message.startswith("stopped by SIGTERM")


@every_release
def test_what_its_controller_wrote_is_understood_by_the_wrapper(release: Path) -> None:
    asked = parameters_of.read(release / "params.json")
    assert asked.token == TOKEN
    assert asked.secret is not None
    assert asked.command[0] == "python3"
    assert asked.listens


@pytest.mark.parametrize("wrapper", WRAPPERS, ids=lambda wrapper: wrapper.parent.name)
def test_its_wrapper_understands_what_the_controller_writes_now(wrapper: Path, tmp_path: Path) -> None:
    written(tmp_path)
    told = "from controller.wrapper import parameters; print(parameters.read(__import__('pathlib').Path(sys.argv[2])))"
    command = [sys.executable, "-I", "-c", f"import sys; sys.path[:0] = sys.argv[1:2]; {told}"]
    done = subprocess.run([*command, wrapper, tmp_path / "params.json"], capture_output=True, text=True, check=False)
    assert "image=Image(source='docker://engine'" in done.stdout, done.stderr
    assert "command=('engine', ({'runtime': 'port'},))" in done.stdout


@every_release
def test_nothing_of_what_it_wrote_is_left_out(release: Path, tmp_path: Path) -> None:
    now = written(tmp_path)
    for name, new in now.items():
        if (release / name).exists():
            assert missing(json.loads((release / name).read_text()), new, name) == []
    assert now["params.json"]["version"] >= json.loads((release / "params.json").read_text())["version"]


def test_what_is_left_out_or_turned_is_found() -> None:
    old = {"a": {"b": 1, "c": None}, "files": {"x": "1"}}
    assert missing(old, {"a": {"b": 2.5, "c": 1, "d": 1}, "files": {}}, "f") == []
    assert missing(old, {"a": {"b": "2"}, "files": {}}, "f") == ["f.a.b", "f.a.c"]
    assert missing({"ok": True}, {"ok": 1}, "f") == ["f.ok"]


@every_locked
async def test_its_health_checks_are_understood(release: Path, tmp_path: Path) -> None:
    run_dirs = SharedRunDirs(tmp_path, "z42chr", "")
    folder = run_dirs.folder("7f96e9xf", TOKEN)
    folder.mkdir(parents=True)
    (folder / "state.json").write_bytes((release / "state.json").read_bytes())
    verdict = await run_dirs.verdict("7f96e9xf", TOKEN)
    assert verdict is not None
    assert (verdict.ok, verdict.failures) == (True, 0)


@every_locked
def test_its_locks_are_heeded(release: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(controller.wrapper.locks.volumes, "PATIENCE", 0)
    (tmp_path / "volume").mkdir()
    (tmp_path / "volume" / "lock.1").write_bytes((release / "lock").read_bytes())
    volume = VolumeMount(source=str(tmp_path / "volume"), target="/data", root=None)
    holder = json.loads((release / "lock").read_text())
    with (
        pytest.raises(FailedError, match=f"in use by {holder['token']} .job {holder['job_id']} on"),
        held([volume], "af-z42chr-another1-0-1", 78, Report(tmp_path), Signals()),
    ):
        pass
