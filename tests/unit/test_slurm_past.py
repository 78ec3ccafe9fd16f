"""slurmctld's memory, as `make chaos` rolls it back."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.cluster.slurm_past import KEPT, SlurmPast


@pytest.fixture
def state(tmp_path: Path) -> Path:
    (tmp_path / "state").mkdir()
    return tmp_path / "state"


def set_clock(monkeypatch: pytest.MonkeyPatch, at: float) -> None:
    monkeypatch.setattr(time, "time", lambda: at)


def test_the_state_of_that_time_comes_back_and_nothing_newer_stays(
    state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    past = SlurmPast(state, tmp_path / "past")
    for at in (100, 102, 104):
        set_clock(monkeypatch, at)
        (state / "job_state").write_text(str(at))
        past.remember()
    (state / "newer").touch()
    past.put_back(2.4)
    assert [(file.name, file.read_text()) for file in state.iterdir()] == [("job_state", "102")]


def test_what_is_too_old_is_forgotten(state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    past = SlurmPast(state, tmp_path / "past")
    for at in (100.0, 101.0, 101.5 + KEPT):
        set_clock(monkeypatch, at)
        past.remember()
    assert sorted(copy.name for copy in (tmp_path / "past").iterdir()) == ["131.500"]
