from __future__ import annotations

import json
import os
import threading
from pathlib import Path

import pytest

from controller.wrapper.report import Ending, Report


def state(folder: Path) -> dict[str, object]:
    content: dict[str, object] = json.loads((folder / "state.json").read_text())
    return content


def test_a_port_stays_once_known(tmp_path: Path) -> None:
    report = Report(tmp_path)
    report.step("claimed")
    assert (state(tmp_path)["step"], state(tmp_path)["port"]) == ("claimed", None)
    report.step("starting", port=8000)
    report.step("serving", "up")
    assert (state(tmp_path)["step"], state(tmp_path)["port"], state(tmp_path)["detail"]) == ("serving", 8000, "up")


def test_what_was_launched_is_told_on(tmp_path: Path) -> None:
    report = Report(tmp_path)
    report.step("claimed")
    assert "digest" not in state(tmp_path)
    report.digest = "d1"
    report.step("starting")
    assert state(tmp_path)["digest"] == "d1"


def test_details_are_held_back_and_the_newest_wins(tmp_path: Path) -> None:
    report = Report(tmp_path)
    report.step("loading", "0%")
    for percent in range(100):
        report.detail(f"{percent}%")
    assert state(tmp_path)["detail"] == "0%"
    report._written_at -= 2.0
    report.catch_up()
    assert state(tmp_path)["detail"] == "99%"


def test_readers_never_see_half_a_file(tmp_path: Path) -> None:
    report = Report(tmp_path)
    report.step("claimed")
    done = threading.Event()
    broken: list[str] = []

    def look() -> None:
        while not done.is_set():
            text = (tmp_path / "state.json").read_text()
            try:
                json.loads(text)
            except ValueError:
                broken.append(text)

    reader = threading.Thread(target=look)
    reader.start()
    for number in range(200):
        report.step("loading", "x" * number * 50)
    done.set()
    reader.join()
    assert broken == []
    assert [path.name for path in tmp_path.iterdir()] == ["state.json"]


def test_messages_are_cut_and_cleaned(tmp_path: Path) -> None:
    Report(tmp_path).end(Ending(1, "EngineExited", "r\x1bed\0\udcff\nnext\t" + "x" * 5000))
    content = json.loads((tmp_path / "exit.json").read_text())
    assert content["message"].startswith("red\nnext\tx")
    assert len(content["message"]) == 2000
    assert (content["code"], content["reason"]) == (1, "EngineExited")


def test_a_full_disk_is_said_once_and_survived(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    report = Report(tmp_path)
    report.step("claimed")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        for step in ("starting", "loading", "serving"):
            report.step(step)
        report.end(Ending(0, "EngineExited", ""))
        assert state(tmp_path)["step"] == "claimed"
    assert capsys.readouterr().err.count("No space left") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["state.json"]
    report._written_at -= 2.0
    report.catch_up()
    assert state(tmp_path)["step"] == "serving"


def test_a_sign_of_life_is_a_new_time_of_the_same_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = tmp_path / "state.json"
    report = Report(tmp_path)
    report.step("serving")
    before = state.read_bytes()
    os.utime(state, (1, 1))
    report.sign()
    assert (state.stat().st_mtime > 1, state.read_bytes()) == (True, before)
    os.utime(state, (1, 1))
    report.sign()
    assert state.stat().st_mtime == 1, "not more often than every few seconds"


def test_a_sign_that_can_not_be_given_ends_nothing(tmp_path: Path) -> None:
    Report(tmp_path / "away").sign()
