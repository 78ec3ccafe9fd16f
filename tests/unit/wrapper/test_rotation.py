"""Logs that grow too long, under an engine that goes on writing."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

import controller.wrapper.logs.rotation
from controller.wrapper.logs.reading import Logs
from controller.wrapper.logs.rotation import Rotation

from .jobs import Job, until

WRITER = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
for number in range(10**9):
    os.write(1, b"%d %s\\n" % (number, b"x" * 90))
    time.sleep(0.0005)
"""


@pytest.fixture
def appending(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let our own output count as a job's."""
    monkeypatch.setattr(controller.wrapper.logs.rotation, "_appends", lambda number: True)


def numbers(path: Path) -> list[int]:
    return [int(line.split()[0]) for line in path.read_text().splitlines()]


def test_an_engine_writes_on_while_its_log_is_rotated(job: Job, python: str) -> None:
    job.write(command=[python, "-c", WRITER], listens=True, log_bytes=50_000)
    job.start()
    log = job.folder / "stdout.log"
    before = job.folder / "stdout.log.1"
    until(lambda: before.exists() and log.stat().st_size > 0)
    first = numbers(before)[0]
    until(lambda: numbers(before)[0] > first)
    job.send(signal.SIGTERM)
    assert job.wait() == 0
    found = numbers(before) + numbers(log)
    assert found == sorted(set(found))
    assert found[-1] - found[0] + 1 - len(found) <= 2  # what may fall between copy and truncation
    assert before.stat().st_mode & 0o777 == 0o600
    assert sorted(path.name for path in job.folder.glob("*std*")) == ["stderr.log", "stdout.log", "stdout.log.1"]


def test_a_copy_that_takes_long_goes_on_at_the_next_look(
    tmp_path: Path, appending: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(controller.wrapper.logs.rotation, "BLOCK", 100)
    monkeypatch.setattr(controller.wrapper.logs.rotation, "MOST_SECONDS", 0.0)
    log, before = tmp_path / "stdout.log", tmp_path / "stdout.log.1"
    log.write_text("x" * 250)
    rotation = Rotation([log], 200)
    for _ in range(3):
        rotation.look()
        assert log.stat().st_size == 250
    assert not before.exists()
    rotation.look()
    assert (log.stat().st_size, before.stat().st_size) == (0, 250)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["stdout.log", "stdout.log.1"]


@pytest.mark.parametrize("most", [0, 10_000_000])
def test_a_log_that_may_grow_is_left_alone(tmp_path: Path, appending: None, most: int) -> None:
    (tmp_path / "stdout.log").write_text("x\n" * 1000)
    Rotation([tmp_path / "stdout.log", tmp_path / "stderr.log"], most).look()
    assert [path.name for path in tmp_path.iterdir()] == ["stdout.log"]


def test_nothing_is_truncated_that_is_not_appended_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(controller.wrapper.logs.rotation, "_appends", lambda number: False)
    (tmp_path / "stdout.log").write_text("x\n" * 1000)
    Rotation([tmp_path / "stdout.log"], 10).look()
    assert (tmp_path / "stdout.log").stat().st_size == 2000


def test_what_can_not_be_rotated_is_said_once(
    tmp_path: Path, appending: None, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "stdout.log"
    log.write_text("x\n" * 1000)
    (tmp_path / "stdout.log.1").mkdir()
    rotation = Rotation([log], 10)
    rotation.look()
    rotation.look()
    assert capsys.readouterr().err.count("cannot rotate") == 1
    assert log.stat().st_size == 2000
    assert sorted(path.name for path in tmp_path.iterdir()) == ["stdout.log", "stdout.log.1"]


def test_the_last_lines_are_found_in_both(tmp_path: Path, appending: None) -> None:
    log = tmp_path / "stdout.log"
    logs = Logs(tmp_path, most=100)
    log.write_text("".join(f"{number}\n" for number in range(100)))
    assert len(logs.new_lines()) == 100
    assert log.stat().st_size == 0
    with log.open("a") as file:
        file.write("ValueError: why\n")
    assert logs.new_lines() == ["ValueError: why"]
    assert logs.lines()[-2:] == ["99", "ValueError: why"]
