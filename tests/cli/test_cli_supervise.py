from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from api.cli.errors import CliError
from api.cli.programs.child import Program
from api.cli.programs.supervise import supervise
from api.contract.exits import Exit

SLEEP = "import time; print('up', flush=True); time.sleep(600)"
READY_AND_GONE = """
import os, sys, time
ready = int(sys.argv[1].removeprefix("--ready="))
os.write(ready, b"\\n")
print("up", flush=True)
if os.path.exists(os.environ["MARK"]):
    time.sleep(600)
open(os.environ["MARK"], "w").close()
"""
STUBBORN = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {SLEEP}"
UP = """
import asyncio, sys
from api.cli.programs.child import Program
from api.cli.programs.supervise import supervise
import os
programs = [Program(name=f"p{i}", command=[sys.executable, "-c", code], environment=dict(os.environ))
            for i, code in enumerate(sys.argv[1:])]
asyncio.run(supervise(programs, lambda line: print(line, flush=True)))
print("ended", flush=True)
"""


def program(name: str, code: str) -> Program:
    return Program(name=name, command=[sys.executable, "-c", code], environment=dict(os.environ))


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def alive(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    return False


def is_pending(pid: int, number: int) -> bool:
    """Whether a signal that was sent to a process has not reached it yet."""
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return any(int(fields[name], 16) >> (number - 1) & 1 for name in ("SigPnd", "ShdPnd"))


def eventually(truth: Callable[[], object], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not truth():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture
def start() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Run `supervise` in a process of its own, until both of its children have spoken."""
    started: list[subprocess.Popen[str]] = []

    def start(*codes: str) -> subprocess.Popen[str]:
        up = subprocess.Popen([sys.executable, "-c", UP, *codes], stdout=subprocess.PIPE, text=True)
        started.append(up)
        assert up.stdout is not None
        for _ in codes:
            assert up.stdout.readline().endswith("| up\n")
        return up

    yield start
    for up in started:
        if up.poll() is None:
            for child in children(up.pid):
                os.kill(child, signal.SIGKILL)
            up.kill()
        up.wait()
        assert up.stdout is not None
        up.stdout.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_all_at_once(start: Callable[..., subprocess.Popen[str]], number: int) -> None:
    up = start(SLEEP, SLEEP)
    mine = children(up.pid)
    assert len(mine) == 2
    began = time.monotonic()
    up.send_signal(number)
    assert up.wait(60) == 0
    assert time.monotonic() - began < 4.5
    assert not any(map(alive, mine))


def test_what_does_not_heed_term_is_killed_after_five_seconds(start: Callable[..., subprocess.Popen[str]]) -> None:
    up = start(STUBBORN, SLEEP)
    mine = children(up.pid)
    began = time.monotonic()
    up.terminate()
    assert up.wait(60) == 0
    assert time.monotonic() - began > 4.5
    assert not any(map(alive, mine))


def test_a_second_signal_does_not_wait(start: Callable[..., subprocess.Popen[str]]) -> None:
    up = start(STUBBORN, STUBBORN)
    mine = children(up.pid)
    up.send_signal(signal.SIGINT)
    eventually(lambda: not is_pending(up.pid, signal.SIGINT))  # else both would be one
    time.sleep(0.2)  # so that it comes while the children are waited for
    up.send_signal(signal.SIGINT)
    assert up.wait(4.5) == 0
    assert not any(map(alive, mine))


def test_sigkill_leaves_no_children(start: Callable[..., subprocess.Popen[str]]) -> None:
    up = start(STUBBORN, SLEEP)
    mine = children(up.pid)
    assert all(map(alive, mine))
    up.kill()
    up.wait()
    eventually(lambda: not any(map(alive, mine)), 20)


def test_when_one_falls_the_other_is_ended_and_its_last_words_are_told() -> None:
    said: list[str] = []
    programs = [
        program("api", "print('first', flush=True); raise ValueError('boom')"),
        program("controller", SLEEP),
    ]
    with pytest.raises(CliError) as raised:
        asyncio.run(supervise(programs, said.append))
    assert raised.value.code is Exit.FAILED
    assert "The api ended with exit code 1" in str(raised.value)
    assert str(raised.value).endswith("ValueError: boom")
    assert "api        | first" in said


def test_a_killed_child_is_told_by_its_signal() -> None:
    killed = "import os; os.kill(os.getpid(), 9)"
    with pytest.raises(CliError, match=r"was killed by signal 9.*it said nothing"):
        asyncio.run(supervise([program("api", killed), program("controller", SLEEP)], lambda _: None))


def test_a_child_that_ends_well_has_ended_all_the_same() -> None:
    with pytest.raises(CliError, match="exit code 0"):
        asyncio.run(supervise([program("api", "pass"), program("controller", SLEEP)], lambda _: None))


@pytest.mark.parametrize(("child", "code"), [(3, Exit.SETUP), (4, Exit.UNREACHABLE)])
def test_a_set_up_error_is_passed_on_as_it_is(child: int, code: Exit) -> None:
    fails = f"import sys; print('ai-factory: Port 1 is taken. Give another.'); sys.exit({child})"
    with pytest.raises(CliError) as raised:
        asyncio.run(supervise([program("api", fails), program("controller", SLEEP)], lambda _: None))
    assert (str(raised.value), raised.value.code) == ("Port 1 is taken. Give another.", code)


def test_a_program_that_can_not_be_started() -> None:
    missing = Program(name="api", command=["/no/such/program"], environment=dict(os.environ))
    with pytest.raises(CliError, match="No such file"):
        asyncio.run(supervise([missing, program("controller", SLEEP)], lambda _: None))


def test_a_host_that_can_start_nothing_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else one of the gateway's sockets would have nobody who accepts, and nobody would know."""
    spawned: list[str] = []
    spawn = asyncio.create_subprocess_exec

    async def failing(*command: str, **rest: Any) -> asyncio.subprocess.Process:
        spawned.append(command[0])
        if len(spawned) in (2, 3):
            raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")
        return await spawn(*command, **rest)

    def say(line: str) -> None:
        said.append(line)
        if said.count("up") == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    said: list[str] = []
    monkeypatch.setattr("asyncio.create_subprocess_exec", failing)
    monkeypatch.setattr("api.cli.programs.supervise.PAUSE_SECONDS", 0.01)
    with socket.socket() as listening:
        environment = {**os.environ, "MARK": str(tmp_path / "mark")}
        one = program("gateway", READY_AND_GONE)
        worker = replace(one, environment=environment, listening=[listening], is_restarted=True)
        asyncio.run(asyncio.wait_for(supervise([worker], say), 60))
    assert said.count("The gateway can't be started: Resource temporarily unavailable. It is tried again.") == 2
    assert len(spawned) == 4


def test_long_and_strange_output_is_passed_on() -> None:
    said: list[str] = []
    talk = "import sys; sys.stdout.buffer.write(b'x' * 300000 + b'\\n\\xff\\n' + b'last'); sys.exit(7)"
    with pytest.raises(CliError, match=r"exit code 7.*last$"):
        asyncio.run(supervise([program("api", talk)], said.append))
    assert sum(line.count("x") for line in said) == 300000


def test_a_reader_that_went_away_does_not_stop_the_programs() -> None:
    def gone(_: str) -> None:
        raise BrokenPipeError

    talk = "import time\nfor _ in range(50): print('x' * 9999, flush=True)\nraise SystemExit(9)"
    with pytest.raises(CliError, match="exit code 9"):
        asyncio.run(supervise([program("api", talk)], gone))


def test_the_greeting_runs_beside_and_may_fail_or_never_end() -> None:
    greeted = []

    async def greet() -> None:
        greeted.append(True)
        await asyncio.sleep(600)

    with pytest.raises(CliError, match="exit code 7"):
        asyncio.run(supervise([program("api", "raise SystemExit(7)")], lambda _: None, greet))
    assert greeted
