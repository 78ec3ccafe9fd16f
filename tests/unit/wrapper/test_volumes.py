"""Volumes: one job at a time, whatever comes; and nothing of it is lost."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from api.contract.job.parameters import VolumeMount
from controller.wrapper.locks import lock
from controller.wrapper.locks import volumes as module
from controller.wrapper.locks.lock import Holder
from controller.wrapper.locks.volumes import HeldVolumes
from controller.wrapper.report import FailedError, Report
from controller.wrapper.signals import StoppedError

from .jobs import Calm, Job

ME, FORERUNNER, OTHER = "af-i-s-0-12", "af-i-s-0-9", "af-i-t-0-1"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PATIENCE", 0.1)
    monkeypatch.setattr(module, "descendants", lambda _: set())


def take(folder: Path, token: str, job_id: int = 7, signals: Any = None, root: str | None = None) -> HeldVolumes:
    held = HeldVolumes(Holder(token, job_id, "here", 1.0))
    report = Report(folder.parent)
    held.take(VolumeMount(str(folder), "/data", root), report, signals or Calm())
    return held


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def locks(folder: Path) -> list[str]:
    return sorted((path.name for path in folder.glob("lock.*")), key=lambda name: int(name[5:]))


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    return tmp_path / "far" / "volume"


def test_a_fresh_one_is_made_for_nobody_else(volume: Path, tmp_path: Path) -> None:
    take(tmp_path / "volume", ME)
    assert names(tmp_path / "volume") == ["data", "lock.1"]
    for path in (tmp_path / "volume", tmp_path / "volume/data", tmp_path / "volume/lock.1"):
        assert path.stat().st_mode & 0o77 == 0
    assert json.loads((tmp_path / "volume/lock.1").read_text())["token"] == ME


def test_a_pipe_in_the_place_of_a_lock_holds_nothing_up(volume: Path) -> None:
    """A volume may lie in a folder that others write to."""
    (volume / "data").mkdir(parents=True)
    os.mkfifo(volume / "lock.1", 0o600)
    with pytest.raises(FailedError, match="is in use by somebody whose lock can't be read"):
        take(volume, ME)


def test_a_link_in_the_place_of_a_lock_has_nothing_else_written(volume: Path, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    take(volume, OTHER).give_back()
    precious.write_bytes((volume / "lock.2").read_bytes())
    before = precious.read_bytes()
    (volume / "lock.2").unlink()
    (volume / "lock.2").symlink_to(precious)
    draft = volume / f".lock.7.here.{os.getpid()}"
    draft.symlink_to(precious)
    take(volume, ME).give_back()
    os.link(precious, draft)
    take(volume, ME)
    assert precious.read_bytes() == before
    assert names(volume)[0] != draft.name


def test_one_that_was_given_back_is_anybodys(volume: Path) -> None:
    take(volume, OTHER).give_back()
    held = take(volume, ME)
    assert held.lost() is None
    assert locks(volume) == ["lock.1", "lock.2", "lock.3"]


@pytest.mark.parametrize(
    "holder", [OTHER, "af-i-s-1-1", "af-j-s-0-1", "af-i-s-0-13", "af-i-s-0-x", "-1", "x", "af-i-s-0-²"]
)
def test_while_another_holds_it_it_is_refused(volume: Path, holder: str) -> None:
    theirs = take(volume, holder, job_id=4711)
    with pytest.raises(FailedError) as failed:
        take(volume, ME)
    assert failed.value.ending.reason == "VolumeInUse"
    assert f"is in use by {holder} (job 4711 on here)" in failed.value.ending.message
    assert f"remove {volume}/lock.*" in failed.value.ending.message
    assert theirs.lost() is None
    assert locks(volume) == ["lock.1"]


def test_what_the_refusal_says_to_do_helps(volume: Path) -> None:
    take(volume, FORERUNNER)
    take(volume, "af-i-s-0-10")
    for name in locks(volume):
        (volume / name).unlink()
    assert take(volume, OTHER).lost() is None


def test_an_earlier_try_at_the_same_replica_is_superseded_and_notices(volume: Path) -> None:
    before = take(volume, FORERUNNER)
    now = take(volume, ME)
    assert now.lost() is None
    assert f"was taken over by {ME}" in str(before.lost())
    before.give_back()
    with pytest.raises(FailedError):
        take(volume, OTHER)
    assert now.lost() is None, "who lost a volume can't give it back"


@pytest.mark.parametrize("content", ["", "{", "[]", '{"token": "af-i-s-0-9"}', '{"token": "", "job_id": "x"}', "\xff"])
def test_a_lock_that_cannot_be_read_is_somebodys(volume: Path, content: str) -> None:
    volume.mkdir(parents=True)
    (volume / "lock.5").write_text(content, encoding="latin-1")
    with pytest.raises(FailedError, match="somebody whose lock can't be read"):
        take(volume, ME)


def test_one_that_is_given_back_meanwhile_is_waited_for(volume: Path) -> None:
    theirs = take(volume, OTHER)

    class Patient(Calm):
        def wait(self, seconds: float) -> None:
            theirs.give_back()

    assert take(volume, ME, signals=Patient()).lost() is None


def test_who_waits_can_be_stopped(volume: Path) -> None:
    take(volume, OTHER)
    stopped = Calm()
    stopped.stop = signal.SIGTERM  # type: ignore[assignment]
    with pytest.raises(StoppedError):
        take(volume, ME, signals=stopped)


def test_it_is_not_given_back_while_something_of_ours_may_write(volume: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held = take(volume, OTHER)
    monkeypatch.setattr(module, "descendants", lambda _: {1})
    held.give_back()
    with pytest.raises(FailedError):
        take(volume, ME)


def test_old_numbers_are_cleared_away_and_nobody_can_use_them_again(volume: Path) -> None:
    for _ in range(40):
        take(volume, OTHER).give_back()
    assert len(locks(volume)) <= lock.KEPT + 2
    held = take(volume, ME)
    newest = int(locks(volume)[-1][5:])
    assert newest == 81
    assert lock.take(volume, 3, Holder(OTHER, 1, "late", 1.0)) is False
    assert held.lost() is None


def test_a_lost_answer_is_no_lost_lock(volume: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """NFS may repeat a request that has succeeded, and then hear that the name is taken."""
    link = os.link

    def repeated(source: Any, target: Any) -> None:
        link(source, target)
        raise FileExistsError

    monkeypatch.setattr(os, "link", repeated)
    assert take(volume, ME).lost() is None


def test_a_file_system_without_links_is_told(volume: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    with pytest.raises(FailedError) as failed:
        take(volume, ME)
    assert failed.value.ending.reason == "VolumeFailed"
    assert "Operation not permitted" in failed.value.ending.message
    assert names(volume) == ["data"]


def test_one_folder_by_another_name_is_the_same_volume(volume: Path, tmp_path: Path) -> None:
    take(volume, OTHER)
    (tmp_path / "alias").symlink_to(volume)
    with pytest.raises(FailedError, match="is in use"):
        take(tmp_path / "alias", ME)


def test_links_do_not_lead_out_of_where_it_may_lie(tmp_path: Path) -> None:
    root, secret = tmp_path / "root", tmp_path / "home" / "secret"
    root.mkdir()
    secret.mkdir(parents=True)
    (root / "way").symlink_to(tmp_path / "home")
    for source in (root / "way" / "secret", root / "way", root):
        with pytest.raises(FailedError) as failed:
            take(source, ME, root=str(root))
        assert failed.value.ending.reason == "VolumeFailed"
    assert names(secret) == []
    assert take(root / "fine", ME, root=str(root)).lost() is None


def _race(folder: Path, token: str, start: Any, results: Any) -> None:
    start.wait()
    try:
        held = take(folder, token)
        results.put((token, held.lost() is None))
    except FailedError:
        results.put((token, False))


@pytest.mark.parametrize("tokens", [[f"af-i-{name}-0-1" for name in "abcdef"], [f"af-i-s-0-{n}" for n in range(2, 8)]])
def test_of_many_at_once_one_holds_it(volume: Path, tokens: list[str]) -> None:
    take(volume, "af-i-s-0-1").give_back()
    many = multiprocessing.get_context("fork")
    start, results = many.Event(), many.Queue()
    racers = [many.Process(target=_race, args=(volume, token, start, results)) for token in tokens]
    for racer in racers:
        racer.start()
    start.set()
    told = dict(results.get(timeout=30) for _ in racers)
    for racer in racers:
        racer.join(10)
    _, holder = lock.newest(volume)
    assert holder is not None
    assert told[holder.token] is True
    if len({token[:6] for token in tokens}) > 1:
        assert list(told.values()).count(True) == 1


# Whole jobs


def volumes(folder: Path) -> list[dict[str, Any]]:
    return [{"source": str(folder), "target": "/data", "root": None}]


def test_a_job_holds_its_volume_until_its_end(make_job: Callable[[], Job], volume: Path, tmp_path: Path) -> None:
    job = make_job()
    job.write(command=["sleep", "60"], volumes=volumes(volume), token=FORERUNNER)
    job.start()
    job.until_step("serving")
    assert json.loads((volume / "lock.1").read_text())["job_id"] == 77
    other = make_job()
    other.write(command=["touch", str(tmp_path / "ran")], volumes=volumes(volume), token=OTHER)
    assert other.run() == 1
    assert other.exit["reason"] == "VolumeInUse"
    assert not (tmp_path / "ran").exists()
    job.send(signal.SIGTERM)
    job.wait()
    third = make_job()
    third.write(command=["touch", str(tmp_path / "ran")], volumes=volumes(volume), token=OTHER)
    assert third.run() == 0, third.stderr
    assert locks(volume) == ["lock.1", "lock.2", "lock.3", "lock.4"]


def test_a_killed_job_leaves_it_to_its_successor_alone(make_job: Callable[[], Job], volume: Path) -> None:
    job = make_job()
    job.write(command=["sleep", "60"], volumes=volumes(volume), token=FORERUNNER)
    job.start()
    job.until_step("serving")
    job.kill()
    successor = make_job()
    successor.write(command=["true"], volumes=volumes(volume), token=ME)
    assert successor.run() == 0, successor.stderr


def test_a_job_that_lost_its_volume_ends_its_engine_at_once(make_job: Callable[[], Job], volume: Path) -> None:
    job = make_job()
    job.write(
        command=["sh", "-c", "trap '' TERM; while :; do sleep 1; done"], volumes=volumes(volume), token=FORERUNNER
    )
    job.start()
    job.until_step("serving")
    take(volume, ME)
    assert job.wait(20) == 1
    assert job.exit["reason"] == "VolumeLost"
    assert f"taken over by {ME}" in job.exit["message"]
    _, holder = lock.newest(volume)
    assert holder is not None
    assert holder.token == ME


def test_who_takes_a_volume_while_it_is_looked_at_is_named(volume: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    take(volume, FORERUNNER)
    number, _ = lock.newest(volume)
    lines = lock._lines

    def lines_of_one_just_lost(path: Path) -> list[bytes]:
        monkeypatch.setattr(lock, "_lines", lines)
        take(volume, ME)
        return lines(path)

    monkeypatch.setattr(lock, "_lines", lines_of_one_just_lost)
    assert ME in str(lock.taken_over(volume, number))


def test_a_volume_is_lost_if_only_its_own_lock_says_so(volume: Path) -> None:
    """The folder is seen late, and who has taken it not at all."""
    take(volume, FORERUNNER)
    number, _ = lock.newest(volume)
    assert lock.taken_over(volume, number) is None
    with (volume / f"lock.{number}").open("a") as file:
        file.write("followed\n")
    assert lock.taken_over(volume, number) == "another job"


def test_a_volume_that_cannot_be_is_told(job: Job, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    job.write(command=["true"], volumes=volumes(tmp_path / "file" / "v"), token=ME)
    assert job.run() == 1
    assert job.exit["reason"] == "VolumeFailed"
    assert "Not a directory" in job.exit["message"]


def test_what_is_taken_is_given_back_when_the_next_is_refused(job: Job, tmp_path: Path) -> None:
    take(tmp_path / "b", OTHER)
    job.write(command=["true"], volumes=[*volumes(tmp_path / "b"), *volumes(tmp_path / "a")], token=ME)
    assert job.run() == 1
    assert job.exit["reason"] == "VolumeInUse"
    take(tmp_path / "a", "af-i-third-0-1")
