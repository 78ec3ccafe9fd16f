"""Limits over all processes of a host: what several ask at one time is counted once, and what the dead held is free."""

from __future__ import annotations

import fcntl
import hashlib
import multiprocessing
import os
import signal
import stat
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import get_type_hints

import pytest

from api.contract.settings import GatewaySettings
from api.gateway import ledger as ledger_module
from api.gateway.ledger import ACCOUNTS, MOST_PROCESSES, Ledger, _account, _write
from api.gateway.limits import MINUTE, Account, Refusal
from api.web.key_limits import UNLIMITED, KeyLimits

SPAWN = multiprocessing.get_context("spawn")
PATIENCE = 120.0


class Clock:
    now = 10**12

    def __call__(self) -> int:
        return self.now


def asking(folder: Path, keys: int, tries: int, limits: KeyLimits, answer: Connection) -> None:
    """Ask so often under each of some keys, and say how many passed; a process of its own."""
    ledger_module.PATIENCE = PATIENCE  # on a busy machine one may get no CPU for a while, just when it has the lock
    ledger = Ledger(folder, Clock())
    ledger.look("warm", limits)
    answer.send(None)
    answer.recv()
    passed = [0] * keys
    for number in range(tries * keys):
        found = ledger.admit(f"key-{number % keys}", limits, 0)
        passed[number % keys] += not isinstance(found, Refusal)
    answer.send(passed)
    answer.recv()


def processes(
    count: int, target: Callable[..., None], *arguments: object
) -> list[tuple[multiprocessing.process.BaseProcess, Connection]]:
    made = []
    for _ in range(count):
        here, there = SPAWN.Pipe()
        process = SPAWN.Process(target=target, args=(*arguments, there))
        process.start()
        there.close()
        made.append((process, here))
    for _, here in made:
        assert here.poll(PATIENCE)
        here.recv()
    return made


@pytest.mark.parametrize("limits", [KeyLimits(requests_per_minute=700), KeyLimits(requests_at_once=700)])
def test_several_processes_let_through_exactly_what_one_would(tmp_path: Path, limits: KeyLimits) -> None:
    """Three keys, of which the file must grow too, and four processes that ask 400 times each under each."""
    made = processes(4, asking, tmp_path / "limits", 3, 400, limits)
    for _, here in made:
        here.send(None)
    passed = [here.recv() for _, here in made]
    assert [sum(of_key) for of_key in zip(*passed, strict=True)] == [700, 700, 700]
    for process, here in made:
        here.send(None)
        process.join(PATIENCE)
        assert process.exitcode == 0


def test_what_the_dead_were_answering_is_free(tmp_path: Path) -> None:
    limits = KeyLimits(requests_at_once=5)
    ((process, here),) = processes(1, asking, tmp_path / "limits", 1, 5, limits)
    ledger = Ledger(tmp_path / "limits", Clock())
    here.send(None)
    assert here.recv() == [5]
    assert ledger.admit("key-0", limits, 0) == Refusal("requests_at_once", None)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join(PATIENCE)
    for _ in range(5):
        assert not isinstance(ledger.admit("key-0", limits, 0), Refusal)
    assert ledger.admit("key-0", limits, 0) == Refusal("requests_at_once", None)
    ledger.close()


def test_who_takes_a_dead_ones_number_begins_at_nothing(tmp_path: Path) -> None:
    limits = KeyLimits(requests_at_once=1)
    for _ in range(3):
        ledger = Ledger(tmp_path / "limits", Clock())
        assert not isinstance(ledger.admit("k", limits, 0), Refusal)
        ledger.close()
    assert len([*(tmp_path / "limits").glob("process-*")]) == 1


def test_what_was_asked_outlives_a_restart(tmp_path: Path) -> None:
    limits, clock = KeyLimits(requests_per_minute=1, tokens_per_minute=60), Clock()
    for refused in (False, True):
        ledger = Ledger(tmp_path / "limits", clock)
        assert isinstance(ledger.admit("k", limits, 30), Refusal) is refused
        ledger.close()
    clock.now += MINUTE
    assert not isinstance(Ledger(tmp_path / "limits", clock).admit("k", limits, 30), Refusal)


def test_more_keys_than_fit_at_first(tmp_path: Path) -> None:
    limits = KeyLimits(requests_per_minute=1)
    one, two = (Ledger(tmp_path / "limits", Clock()) for _ in range(2))
    for number in range(300):
        assert not isinstance((one, two)[number % 2].admit(f"k{number}", limits, 0), Refusal)
    for number in range(300):
        assert isinstance((two, one)[number % 2].admit(f"k{number}", limits, 0), Refusal)
    one.close()
    two.close()


def test_what_has_ended_is_written_for_the_others_and_at_the_end(tmp_path: Path) -> None:
    limits = KeyLimits(requests_at_once=1)
    one, two = (Ledger(tmp_path / "limits", Clock()) for _ in range(2))
    for last in (one.write, one.close):
        one.admit("k", limits, 0)
        one.settle("k", limits)
        assert two.admit("k", limits, 0) == Refusal("requests_at_once", None)
        last()
        assert not isinstance(two.admit("k", limits, 0), Refusal)
        two.settle("k", limits)
        two.write()
    two.close()


def test_settling(tmp_path: Path) -> None:
    limits, clock = KeyLimits(requests_per_minute=2, tokens_per_minute=100, requests_at_once=1), Clock()
    ledger = Ledger(tmp_path / "limits", clock)
    ledger.admit("k", limits, 50)
    assert ledger.look("k", limits) == Account(MINUTE, clock.now, 50 * MINUTE, clock.now, 1)
    ledger.settle("k", limits, requests=-1, tokens=-50)
    assert ledger.look("k", limits) == Account(0, clock.now, 0, clock.now, 0)
    ledger.close()


def test_each_that_ends_is_settled_under_its_own_limits(tmp_path: Path) -> None:
    before, after = KeyLimits(requests_at_once=3), KeyLimits(tokens_per_minute=100, requests_at_once=3)
    clock = Clock()
    ledger = Ledger(tmp_path / "limits", clock)
    for limits in (before, after, after):
        ledger.admit("k", limits, 30)
    assert ledger.look("k", after) == Account(tokens=60 * MINUTE, tokens_as_of=clock.now, at_once=3)
    for limits, tokens in ((after, 5), (after, 10), (before, 40)):
        ledger.settle("k", limits, tokens=tokens)
    ledger.write()
    assert ledger.look("k", after) == Account(tokens=75 * MINUTE, tokens_as_of=clock.now)
    ledger.close()


def test_more_than_any_file_holds_is_held(tmp_path: Path) -> None:
    limits, ledger = KeyLimits(tokens_per_minute=1), Ledger(tmp_path / "limits", Clock())
    assert not isinstance(ledger.admit("k", limits, 10**16), Refusal)
    ledger.settle("k", limits, tokens=-(10**16))
    assert not isinstance(ledger.admit("k", limits, 1), Refusal)
    ledger.close()


def test_it_is_its_owners_alone(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "limits", Clock())
    ledger.look("k", UNLIMITED)
    assert stat.S_IMODE((tmp_path / "limits").stat().st_mode) == 0o700
    assert {stat.S_IMODE(file.stat().st_mode) for file in (tmp_path / "limits").iterdir()} == {0o600}
    ledger.close()


def test_a_damaged_file_is_no_end(tmp_path: Path) -> None:
    limits = KeyLimits(requests_per_minute=1)
    for junk in (b"\xff" * 7 + b"\x7f", b"\xff" * 4096):
        ledger = Ledger(tmp_path / "limits", Clock())
        ledger.look("k", UNLIMITED)
        with (tmp_path / "limits" / ACCOUNTS).open("r+b") as file:
            file.write(junk)
        ledger.admit("another", limits, 0)
        assert isinstance(ledger.admit("another", limits, 0), Refusal)
        ledger.close()


def test_a_process_that_stands_still_with_the_lock_holds_nobody_for_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing else gets done while it is waited for: so that is once, not with each request."""
    pauses, sleep = [], time.sleep
    monkeypatch.setattr(ledger_module, "IMPATIENT_SECONDS", 3600.0)
    monkeypatch.setattr(time, "sleep", lambda seconds: (pauses.append(seconds), sleep(seconds)))
    ledger = Ledger(tmp_path / "limits", Clock())
    ledger.look("k", UNLIMITED)
    with (tmp_path / "limits" / ACCOUNTS).open("r+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        for is_first in (True, False, False):
            pauses.clear()
            with pytest.raises(TimeoutError, match="for too long"):
                ledger.look("k", UNLIMITED)
            assert bool(pauses) is is_first
        fcntl.flock(file, fcntl.LOCK_UN)
        ledger.look("k", UNLIMITED)
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(TimeoutError, match="for too long"):
            ledger.look("k", UNLIMITED)
        assert pauses, "whoever has let go is waited for again"
    ledger.look("k", UNLIMITED)
    ledger.close()


def test_what_could_not_be_noted_at_its_end_is_noted_later(tmp_path: Path) -> None:
    ledger, limits = Ledger(tmp_path / "limits", Clock()), KeyLimits(tokens_per_minute=100, requests_at_once=1)
    ledger.admit("k", limits, 70)
    with (tmp_path / "limits" / ACCOUNTS).open("r+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        ledger.settle("k", limits, tokens=-20)
        with pytest.raises(TimeoutError):
            ledger.write()
    account = ledger.look("k", limits)
    assert (account.at_once, account.tokens) == (0, 50 * MINUTE)
    assert not isinstance(ledger.admit("k", limits, 50), Refusal)
    ledger.close()


def test_each_process_of_a_host_has_a_number_while_all_workers_are_replaced() -> None:
    workers = get_type_hints(GatewaySettings, include_extras=True)["workers"].__metadata__[0].le
    assert workers >= 256
    assert 2 * workers < MOST_PROCESSES


def test_there_are_only_so_many_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.gateway.ledger.MOST_PROCESSES", 128)
    ledgers = [Ledger(tmp_path / "limits") for _ in range(128)]
    for ledger in ledgers:
        ledger.look("k", UNLIMITED)
    with pytest.raises(OSError, match="more than 128 processes"):
        Ledger(tmp_path / "limits").look("k", UNLIMITED)
    for ledger in ledgers:
        ledger.close()


def test_it_takes_microseconds(tmp_path: Path) -> None:
    """Said in the docs; here only that it is no file's write and no wait."""
    limits = KeyLimits(requests_per_minute=10**6, tokens_per_minute=10**9, requests_at_once=10)
    ledger = Ledger(tmp_path / "limits")
    ledger.look("k", UNLIMITED)
    began = time.process_time()
    for _ in range(1000):
        ledger.admit("k", limits, 100)
        ledger.settle("k", limits, tokens=5)
        ledger.write()
    spent = (time.process_time() - began) * 1000
    print(f"{spent:.1f} µs of CPU a request", file=sys.stderr)
    assert spent < 1000
    ledger.close()


def test_who_is_killed_between_two_writes_leaves_nobody_refused(tmp_path: Path) -> None:
    """What a row says is being answered may be too much then, and is counted anew before it holds anybody up."""
    ledger, limits = Ledger(tmp_path / "limits", Clock()), KeyLimits(requests_at_once=2)
    ledger.admit("k", limits, 0)
    place = ledger._places[hashlib.sha256(b"k").digest()]
    table = ledger._begin()
    _write(table, place, _account(table, place)._replace(at_once=7))
    ledger._end()
    assert not isinstance(ledger.admit("k", limits, 0), Refusal)
    assert ledger.admit("k", limits, 0) == Refusal("requests_at_once", None)
    ledger.close()


@pytest.mark.parametrize(("asked", "last"), [("admit", "Ledger._add"), ("write", "_write")])
def test_whichever_write_is_the_last_of_a_process_not_too_few_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: str, last: str
) -> None:
    ledger, limits = Ledger(tmp_path / "limits", Clock()), KeyLimits(requests_at_once=1)
    if asked == "write":
        ledger.admit("k", limits, 0)
        ledger.settle("k", limits)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(f"api.gateway.ledger.{last}", killed)
        ledger.admit("k", limits, 0) if asked == "admit" else ledger.write()
    assert ledger.look("k", limits).at_once == 1
    assert not isinstance(ledger.admit("k", limits, 0), Refusal), "nobody is answering that one"
    ledger.close()
