"""What earlier installations left behind is found, and nothing else is taken for it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from api.contract.configuration import load
from api.contract.settings import Settings
from api.contract.traces import PLANS, find_traces


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    (tmp_path / "state").mkdir()
    (tmp_path / "run").mkdir()
    return load({"state_dir": str(tmp_path / "state"), "run_dir": str(tmp_path / "run")}, environ={})


def leave_job(settings: Settings, installation: str = "k3x9pq") -> Path:
    folder = settings.run_dir / installation / "chat1" / f"af-{installation}-chat1-0-1"
    folder.mkdir(parents=True)
    return folder.parents[1]


def leave_plans(settings: Settings, *installations: str, name: str = PLANS) -> Path:
    path = settings.state_dir / name
    lines = (f'{{"epoch":1,"desired":{{"installation":"{one}","name":"chat"}},"plan":{{}}}}\n' for one in installations)
    path.write_text("".join(lines))
    return path


def test_the_newest_plan_names_the_installation_that_was_run_from_here(settings: Settings) -> None:
    plans, jobs = leave_plans(settings, "older9", "k3x9pq"), leave_job(settings)
    with plans.open("a") as file:
        file.write('{"epoch":1,"desired":{"install')
    traces = find_traces(settings)
    assert (traces.planned, traces.run_from_here) == ("k3x9pq", ("k3x9pq",))
    assert traces.paths_of("k3x9pq") == (plans, jobs)
    leave_plans(settings, "newest", name=f"{PLANS}.1")
    assert find_traces(settings).planned == "k3x9pq"
    plans.unlink()
    assert find_traces(settings).planned == "newest"


def test_with_a_key_alone_job_folders_tell(settings: Settings) -> None:
    leave_job(settings)
    assert find_traces(settings).run_from_here == ()
    assert find_traces(settings).installations == {"k3x9pq"}
    settings.key_file.touch()
    assert find_traces(settings).run_from_here == ("k3x9pq",)


def test_nothing_else_in_run_dir_is_taken_for_an_installation(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.key_file.touch()
    for path in ("lib", "volumes/chat1/data", "images/making/af-image-abc-xyz", "doctor", "other2/chat1"):
        (settings.run_dir / path).mkdir(parents=True)
    (settings.run_dir / "copy" / "chat1" / "af-k3x9pq-chat1-0-1").mkdir(parents=True)
    (settings.run_dir / "file").touch()
    assert find_traces(settings).installations == frozenset()
    leave_job(settings)
    colleague = os.getuid() + 1
    monkeypatch.setattr("os.getuid", lambda: colleague)
    assert find_traces(settings).installations == frozenset()


def test_what_is_not_there_is_no_trace(tmp_path: Path) -> None:
    settings = load({"state_dir": str(tmp_path / "a"), "run_dir": str(tmp_path / "b")}, environ={})
    traces = find_traces(settings)
    assert (traces.planned, traces.jobs, traces.key_file, traces.run_from_here) == (None, (), None, ())
