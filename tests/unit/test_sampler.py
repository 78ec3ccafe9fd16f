"""Who looks on at `make chaos` from outside: what it calls a double, what it lets pass, and that it sees processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.cluster.processes import LivingEngine, engines, kill, processes, wrapper, wrappers
from tests.cluster.sampler import AFTER_RESUMING, Sample, Sampler, amiss, overlaps

FIRST = LivingEngine(pid=10, born=1, token="af-i-s-0-1", state="S")
SECOND = LivingEngine(pid=20, born=2, token="af-i-s-0-2", state="S")
OTHER = LivingEngine(pid=30, born=3, token="af-i-s-1-1", state="S")
SUSPENDED = replace(FIRST, state="T")


def samples(*seen: tuple[LivingEngine, ...]) -> list[Sample]:
    return [Sample(float(at), each) for at, each in enumerate(seen)]


def test_two_engines_of_a_replica_are_an_overlap_however_short() -> None:
    (found,) = overlaps(samples((FIRST,), (FIRST, SECOND), (SECOND,)))
    assert (found.older, found.newer, found.first, found.last) == (FIRST, SECOND, 1.0, 1.0)


def test_two_engines_under_one_token_are_an_overlap() -> None:
    assert overlaps(samples((FIRST, replace(FIRST, pid=11, born=5))))


def test_one_after_another_is_none_nor_are_two_replicas() -> None:
    assert overlaps(samples((FIRST, OTHER), (OTHER,), (SECOND, OTHER))) == []


def test_a_suspended_one_does_not_work() -> None:
    assert overlaps(samples((SUSPENDED,), (SUSPENDED, SECOND))) == []


def test_a_resumed_one_may_work_until_it_has_looked_and_killed() -> None:
    allowed = [(FIRST, SECOND)] * (int(AFTER_RESUMING) + 1)
    assert overlaps(samples((SUSPENDED, SECOND), *allowed)) == []
    (found,) = overlaps(samples((SUSPENDED, SECOND), *allowed, (FIRST, SECOND)))
    assert found.first == AFTER_RESUMING + 2


def test_two_that_hand_over_are_none_in_that_order_only() -> None:
    def may_live(older: str, newer: str) -> bool:
        return (older, newer) == (FIRST.token, SECOND.token)

    assert overlaps(samples((FIRST, SECOND)), may_live) == []
    assert overlaps(samples((SECOND, FIRST)), may_live)
    assert overlaps(samples((FIRST, SECOND, replace(SECOND, pid=21, born=3))), may_live)
    assert amiss([FIRST, SECOND], {"s": 1}, may_live) == []
    assert amiss([FIRST, SECOND, SECOND], {"s": 1}, may_live) == ["s-0 has 3 engines at work"]


def test_it_is_the_older_one_that_must_have_been_suspended() -> None:
    assert overlaps(samples((FIRST, replace(SECOND, state="T")), (FIRST, SECOND)))


def test_once_calm_each_replica_has_one_engine_and_nobody_else_has() -> None:
    assert amiss([FIRST, OTHER], {"s": 2}) == []
    assert amiss([FIRST, OTHER], {"s": 1}) == ["the engine 30 of af-i-s-1-1 has no owner"]
    assert amiss([FIRST], {"s": 0, "t": 0}) == ["the engine 10 of af-i-s-0-1 has no owner"]
    assert amiss([FIRST], {"s": 2}) == ["s-1 has 0 engines at work"]
    assert amiss([SUSPENDED], {"s": 1}) == ["s-0 has 0 engines at work"]
    assert amiss([FIRST, SECOND], {"s": 1}) == ["s-0 has 2 engines at work"]


PROGRAM = """
import os, subprocess, sys, time
if os.fork() == 0:
    time.sleep(60)
subprocess.run([sys.executable, sys.argv[1] + "/files/engine.py"], start_new_session=True)
"""


@pytest.fixture
def job(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A wrapper with a guard and an engine, in as far as /proc shows them."""
    folder = tmp_path / "i" / "s" / FIRST.token
    (folder / "files").mkdir(parents=True)
    (folder / "files" / "engine.py").write_text("import time; time.sleep(60)")
    with subprocess.Popen([sys.executable, "-c", PROGRAM, str(folder)]) as wrapper:
        until = time.monotonic() + 30
        while not engines(tmp_path):
            assert time.monotonic() < until
            time.sleep(0.01)
        yield tmp_path, FIRST.token
        doomed = wrappers(tmp_path, FIRST.token, processes()) | {engine.pid for engine in engines(tmp_path)}
        for pid in doomed:
            os.kill(pid, signal.SIGKILL)
        wrapper.wait()


def test_it_finds_the_engine_and_whoever_could_end_it(job: tuple[Path, str]) -> None:
    run_dir, token = job
    (engine,) = engines(run_dir)
    assert engine.token == token
    found = wrappers(run_dir, token, processes())
    assert len(found) == 2
    assert wrapper(run_dir, token, processes()) < found
    assert engine.pid not in found


def test_it_kills_this_very_engine_alone(job: tuple[Path, str]) -> None:
    run_dir, _ = job
    (engine,) = engines(run_dir)
    assert not kill(replace(engine, born=engine.born + 1))
    assert kill(engine)
    until = time.monotonic() + 30
    while engines(run_dir):
        assert time.monotonic() < until
        time.sleep(0.01)


def test_it_keeps_what_it_sees(job: tuple[Path, str], tmp_path: Path) -> None:
    run_dir, token = job
    (engine,) = engines(run_dir)
    os.kill(engine.pid, signal.SIGSTOP)
    sampler = Sampler(run_dir, tmp_path / "samples")
    try:
        until = time.monotonic() + 30
        while not any(seen.state == "T" for sample in sampler.samples() for seen in sample.engines):
            assert time.monotonic() < until
            time.sleep(0.05)
    finally:
        sampler.close()
    last = sampler.samples()[-1]
    assert [seen.token for seen in last.engines] == [token]
    assert sampler.had_just_resumed(token, last.at + AFTER_RESUMING)
    assert not sampler.had_just_resumed(token, last.at + AFTER_RESUMING + 2)
