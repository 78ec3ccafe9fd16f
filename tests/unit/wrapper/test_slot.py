"""The replica's slot: the engine of one attempt at a time, whatever the controller was led to believe."""

from __future__ import annotations

import json
import multiprocessing
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

from api.contract.job.words import Lane
from controller.wrapper.locks import lock
from controller.wrapper.locks import slot as module
from controller.wrapper.locks.slot import HeldSlot
from controller.wrapper.report import FailedError, Report
from controller.wrapper.signals import StoppedError

from .jobs import Calm, Job, alive, until

FIRST, SECOND, OTHER = "af-i-s-0-1", "af-i-s-0-2", "af-i-s-1-1"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HANDOVER", 0.1)
    monkeypatch.setattr(module, "descendants", lambda _: set())


@pytest.fixture
def take(tmp_path: Path) -> Iterator[Callable[..., HeldSlot]]:
    """Take a slot until the test ends."""
    with ExitStack() as stack:

        def take(token: str, signals: Any = None, lane: Lane = Lane.MAIN, *, alone: bool = False) -> HeldSlot:
            folder = tmp_path / token
            folder.mkdir(exist_ok=True)
            held = module.held(folder, lane, token, 7, Report(folder), signals or Calm(), alone=alone)
            return stack.enter_context(held)

        yield take


def test_one_that_nobody_had_is_taken_at_once(take: Callable[..., HeldSlot], tmp_path: Path) -> None:
    signals = Calm()
    assert take(FIRST, signals).lost() is None
    assert signals.waited == 0
    assert (tmp_path / "af-i-s-0.slot").stat().st_mode & 0o77 == 0


def test_one_that_was_given_back_is_taken_at_once(take: Callable[..., HeldSlot]) -> None:
    signals = Calm()
    take(FIRST).give_back()
    assert take(SECOND, signals).lost() is None
    assert signals.waited == 0


def test_who_comes_last_has_it_and_the_one_before_is_told(take: Callable[..., HeldSlot], tmp_path: Path) -> None:
    signals = Calm()
    first = take(FIRST)
    second = take(SECOND, signals)
    assert first.lost() == f"the replica was taken over by {SECOND} (job 7 on {_host(tmp_path)})"
    assert second.lost() is None
    assert signals.waited > 0
    told = json.loads((tmp_path / SECOND / "state.json").read_text())
    assert (told["step"], FIRST in told["detail"]) == ("slot", True)


def test_it_is_told_though_the_folder_is_seen_late(
    take: Callable[..., HeldSlot], monkeypatch: pytest.MonkeyPatch
) -> None:
    """NFS clients keep listings for a while; a file that is opened afresh is asked for at the server."""
    first = take(FIRST)
    take(SECOND)
    monkeypatch.setattr(lock, "newest", lambda _: (1, None))
    assert first.lost() == "the replica was taken over by another job"


def test_it_is_told_however_long_ago_it_was(take: Callable[..., HeldSlot], tmp_path: Path) -> None:
    first = take(FIRST)
    for n in range(2, lock.KEPT + 5):
        lock.take(tmp_path / "af-i-s-0.slot", n, lock.Holder(f"af-i-s-0-{n}", 9, "there", 1.0))
        lock.clear(tmp_path / "af-i-s-0.slot", n)
    assert not (tmp_path / "af-i-s-0.slot" / "lock.1").exists()
    assert f"af-i-s-0-{lock.KEPT + 4}" in str(first.lost())


def test_what_is_given_back_late_takes_it_from_nobody(take: Callable[..., HeldSlot]) -> None:
    first, second = take(FIRST), take(SECOND)
    first.give_back()
    assert second.lost() is None


def test_it_is_not_given_back_while_something_of_ours_lives(
    take: Callable[..., HeldSlot], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, signals = take(FIRST), Calm()
    monkeypatch.setattr(module, "descendants", lambda _: {1})
    first.give_back()
    take(SECOND, signals)
    assert signals.waited > 0


def test_another_replica_has_a_slot_of_its_own(take: Callable[..., HeldSlot]) -> None:
    first = take(FIRST)
    assert take(OTHER).lost() is None
    assert first.lost() is None


def test_another_lane_has_a_slot_of_its_own(take: Callable[..., HeldSlot], tmp_path: Path) -> None:
    first, signals = take(FIRST), Calm()
    assert take(SECOND, signals, lane=Lane.B).lost() is None
    assert (first.lost(), signals.waited) == (None, 0)
    assert sorted(path.name for path in tmp_path.glob("*.slot")) == ["af-i-s-0.b.slot", "af-i-s-0.slot"]


def test_who_is_alone_ends_what_lives_in_the_other_lane(take: Callable[..., HeldSlot], tmp_path: Path) -> None:
    first, signals = take(FIRST), Calm()
    second = take(SECOND, signals, lane=Lane.B, alone=True)
    assert first.lost() is not None
    assert second.lost() is None
    assert signals.waited > 0
    assert FIRST in json.loads((tmp_path / SECOND / "state.json").read_text())["detail"]


def test_what_comes_beside_it_later_neither_waits_nor_ends_it(take: Callable[..., HeldSlot]) -> None:
    first, signals = take(FIRST, alone=True), Calm()
    second = take(SECOND, signals, lane=Lane.B)
    assert (first.lost(), second.lost(), signals.waited) == (None, None, 0)


def test_who_is_alone_and_ended_while_it_waits_leaves_the_wait_in_both_lanes(take: Callable[..., HeldSlot]) -> None:
    take(FIRST)
    ended, third = Calm(), Calm()
    ended.stop = signal.SIGTERM
    with pytest.raises(StoppedError):
        take(SECOND, ended, lane=Lane.B, alone=True)
    take("af-i-s-0-3", third)
    assert third.waited > 0


def test_its_step_begins_before_it_is_looked_for(
    take: Callable[..., HeldSlot], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A file system that hangs there must count against the start, not against the image."""
    steps: list[str] = []

    def fail(_: Path) -> None:
        steps.append(json.loads((tmp_path / FIRST / "state.json").read_text())["step"])
        raise OSError("stale file handle")

    monkeypatch.setattr(lock, "newest", fail)
    with pytest.raises(FailedError, match="stale"):
        take(FIRST)
    assert steps == ["slot"]


def test_who_loses_it_while_waiting_never_starts(take: Callable[..., HeldSlot], tmp_path: Path) -> None:
    take(FIRST)

    class Overtaken(Calm):
        def wait(self, seconds: float) -> None:
            super().wait(seconds)
            if self.waited == seconds:
                lock.take(tmp_path / "af-i-s-0.slot", 3, lock.Holder("af-i-s-0-3", 9, "there", 1.0))

    with pytest.raises(FailedError, match="taken over by af-i-s-0-3"):
        take(SECOND, Overtaken())


def test_a_term_ends_the_wait(take: Callable[..., HeldSlot]) -> None:
    take(FIRST)
    signals = Calm()
    signals.stop = signal.SIGTERM
    with pytest.raises(StoppedError):
        take(SECOND, signals)


def test_who_is_ended_while_it_waits_leaves_the_wait_to_the_next(take: Callable[..., HeldSlot]) -> None:
    """The first engine may still be ending."""
    take(FIRST)
    ended, third = Calm(), Calm()
    ended.stop = signal.SIGTERM
    with pytest.raises(StoppedError):
        take(SECOND, ended)
    take("af-i-s-0-3", third)
    assert third.waited > 0


def test_without_a_slot_no_engine(job: Job, tmp_path: Path) -> None:
    (tmp_path / "af-i-job0-0.slot").write_text("in the way")
    assert job.run_command("touch", str(tmp_path / "ran")) == 1
    assert job.exit["reason"] == "SlotFailed"
    assert not (tmp_path / "ran").exists()


def test_an_engine_ends_when_another_attempt_comes_and_only_then_that_one_starts(
    make_job: Callable[[], Job], python: str
) -> None:
    first, second = make_job(), make_job()
    sleep = "import os, time; print(os.getpid(), flush=True); time.sleep(600)"
    for job, token in ((first, FIRST), (second, SECOND)):
        job.write(command=[python, "-c", sleep], token=token)
    first.start()
    pid = int(until(lambda: first.stdout))
    second.start()
    assert first.wait() == 1
    assert first.exit["reason"] == "SlotLost"
    assert SECOND in first.exit["message"]
    assert not alive(pid)
    assert second.state["step"] == "slot"
    assert second.stdout == ""
    until(lambda: second.stdout)
    second.send(signal.SIGTERM)
    second.wait()


def _race(parent: Path, token: str, lane: Lane, together: Any, results: Any) -> None:
    folder = parent / token
    folder.mkdir()
    together.wait(30)
    with ExitStack() as stack:
        slot = None
        with suppress(FailedError):
            slot = stack.enter_context(module.held(folder, lane, token, 7, Report(folder), Calm(), alone=True))  # type: ignore[arg-type]
        together.wait(30)
        results.put(slot is not None and slot.lost() is None)
        together.wait(30)


def _who_goes_on(parent: Path, lanes: tuple[Lane, ...]) -> int:
    many = multiprocessing.get_context("fork")
    tokens = [f"af-i-s-0-{n}" for n in range(1, 7)]
    together, results = many.Barrier(len(tokens)), many.Queue()
    racers = [
        many.Process(target=_race, args=(parent, token, lanes[n % len(lanes)], together, results))
        for n, token in enumerate(tokens)
    ]
    for racer in racers:
        racer.start()
    told = [results.get(timeout=30) for _ in racers]
    for racer in racers:
        racer.join(10)
    return told.count(True)


def test_of_many_at_once_one_goes_on(tmp_path: Path) -> None:
    assert _who_goes_on(tmp_path, (Lane.MAIN,)) == 1


def test_of_many_at_once_in_both_lanes_no_two_go_on(tmp_path: Path) -> None:
    """All may have to begin anew: each of two may find that the other took its slot."""
    assert _who_goes_on(tmp_path, (Lane.MAIN, Lane.B)) <= 1


def _host(tmp_path: Path) -> str:
    return str(json.loads((tmp_path / "af-i-s-0.slot" / "lock.2").read_text().splitlines()[0])["host"])
