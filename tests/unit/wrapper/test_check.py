"""Health checks of kind `command`, as whole jobs: what they see, what they say, and that they never stay."""

from __future__ import annotations

import json
import os
import signal
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from controller.wrapper import check as module
from controller.wrapper.check import HealthCheck
from controller.wrapper.process import Child
from controller.wrapper.signals import Signals

from .jobs import ENGINE, Job, alive, until


def begin(job: Job, *command: Any, engine: tuple[Any, ...] = ("sleep", "60"), **parameters: Any) -> None:
    check = {"command": list(command), "interval": 0.05, "timeout": parameters.pop("timeout", 20)}
    job.write(command=list(engine), check=check, **parameters)
    job.start()


def verdict(job: Job) -> dict[str, Any]:
    return dict(job.state.get("health", {}))


def test_says_when_all_is_well_and_when_it_is_not_any_more(job: Job, tmp_path: Path) -> None:
    sign = tmp_path / "sign"
    begin(job, "sh", "-c", 'test ! -e "$1" || { echo out of room; exit 3; }', "sh", str(sign))
    until(lambda: verdict(job) == {"ok": True, "failures": 0, "message": ""})
    sign.touch()
    until(lambda: verdict(job).get("failures", 0) >= 2)
    assert verdict(job)["ok"] is False
    assert verdict(job)["message"] == "The health check ended with 3: out of room"
    sign.unlink()
    until(lambda: verdict(job)["ok"])
    assert verdict(job)["failures"] == 0
    assert job.exit == {}, "what a verdict means is decided elsewhere"


def test_it_is_not_made_before_the_engine_listens_and_knows_its_port(job: Job, python: str, tmp_path: Path) -> None:
    port = {"runtime": "port"}
    engine = (python, str(ENGINE), "--host", "127.0.0.1", "--port", [port], "--startup-delay", "2.5")
    connect = "import socket, sys; socket.create_connection(('127.0.0.1', int(sys.argv[1]))); open(sys.argv[2], 'a')"
    begin(job, python, "-c", connect, [port], str(tmp_path / "made"), engine=engine, listens=True)
    job.until_step("loading")
    assert not (tmp_path / "made").exists()
    until(lambda: verdict(job).get("ok"))
    assert job.state["step"] == "serving"


def test_one_that_hangs_is_killed_with_all_it_started(job: Job, tmp_path: Path) -> None:
    pids_file, new = tmp_path / "pids", tmp_path / "new"
    begin(job, "sh", "-c", f"sleep 61 & echo $! $$ > {new}; mv {new} {pids_file}; wait", timeout=0.5)
    until(lambda: verdict(job).get("failures", 0) >= 1)
    assert verdict(job)["message"] == "The health check did not end within 0.5 s"
    until(pids_file.exists)
    pids = [int(pid) for pid in pids_file.read_text().split()]
    job.send(signal.SIGTERM)
    job.wait()
    assert job.exit["reason"] == "Terminated"
    assert pids
    assert not any(alive(pid) for pid in pids)


def test_the_engine_does_not_notice_a_check_that_is_cut(job: Job, tmp_path: Path) -> None:
    body = f"trap 'echo signalled' TERM INT HUP; while :; do date +%s%N > {tmp_path}/beat; sleep 0.05; done"
    begin(job, "sleep", "62", engine=("sh", "-c", body), timeout=0.1)
    until(lambda: verdict(job).get("failures", 0) >= 3)
    beat = until(lambda: (tmp_path / "beat").exists() and (tmp_path / "beat").read_text())
    until(lambda: (tmp_path / "beat").read_text() != beat)
    assert job.stdout == ""
    assert job.exit == {}


def test_an_engine_that_ends_takes_a_running_check_with_it(job: Job, tmp_path: Path) -> None:
    begin(job, "sh", "-c", f"echo $$ > {tmp_path}/pid; exec sleep 63", engine=("sh", "-c", f"""
        while ! [ -s {tmp_path}/pid ]; do sleep 0.02; done; exit 4"""))  # fmt: skip
    assert job.wait() == 4
    assert not alive(int((tmp_path / "pid").read_text()))
    assert list(job.temporary.iterdir()) == []


def test_a_killed_wrapper_leaves_no_check_behind(job: Job, tmp_path: Path) -> None:
    begin(job, "sh", "-c", f"echo $$ > {tmp_path}/pid; exec sleep 64")
    pid = int(until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text()))
    assert alive(pid)
    job.send(signal.SIGKILL)
    job.wait()
    until(lambda: not alive(pid))


def test_it_has_the_engines_environment_and_no_secret_is_told(job: Job, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("5ec2e7\n")
    token.chmod(0o600)
    body = 'tr "\\0" " " < /proc/$$/cmdline > "$2"; echo "$HOME $A $KEY"; exit 1'
    begin(job, "sh", "-c", body, "sh", "x", str(tmp_path / "argv"), environment={"A": "a'b"},
          environment_from={"KEY": str(token)})  # fmt: skip
    until(lambda: verdict(job).get("failures"))
    assert verdict(job)["message"].endswith("/home a'b ***")
    assert "5ec2e7" not in (tmp_path / "argv").read_text()
    assert "5ec2e7" not in json.dumps(job.state) + job.stdout + job.stderr


@pytest.mark.parametrize("said", ["printf 'a\\0b\\033[31m\\377c'", "yes | head -c 1000000"])
def test_whatever_it_writes_is_told_in_short_and_plain(job: Job, said: str) -> None:
    begin(job, "sh", "-c", f"{said}; exit 1")
    until(lambda: verdict(job).get("failures"))
    assert 0 < len(verdict(job)["message"]) < 500
    assert not {"\0", "\x1b"} & set(verdict(job)["message"])
    assert job.stdout == "", "a check that is made every few seconds would fill the log"


def test_one_that_is_not_there_is_a_failure(job: Job) -> None:
    begin(job, "no-such-program")
    until(lambda: verdict(job).get("failures"))
    assert verdict(job)["message"] == "The health check cannot be started: No such file or directory"


def test_while_not_well_it_is_made_more_often(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STARTING", 0.05)
    sign = tmp_path / "sign"
    signals = cast(Signals, SimpleNamespace(readers={}))
    command = ["test", "-e", str(sign)]
    start = partial(Child, command, os.environ, tmp_path)
    check = HealthCheck(start, signals, interval=3600, timeout=20, redact=str)
    until(lambda: (found := check.tend()) is not None and found.failures >= 3)
    sign.touch()
    assert until(lambda: (found := check.tend()) is not None and found.ok)
    assert check.pause() > 3000
    check.close()
    assert signals.readers == {}


def test_what_it_writes_without_end_is_kept_nowhere_and_never_stops_it(job: Job, tmp_path: Path) -> None:
    """A hundred times what a pipe holds; and one that has closed its output goes on without it."""
    body = 'head -c 6400000 /dev/zero; exec >&- 2>&-; echo $$ > "$1"; test -e "$2"'
    begin(job, "sh", "-c", body, "sh", str(tmp_path / "written"), str(tmp_path / "sign"))
    until(lambda: verdict(job).get("failures", 0) >= 2)
    (tmp_path / "sign").touch()
    until(lambda: verdict(job)["ok"])
    sizes = [path.stat().st_size for path in job.temporary.rglob("*") if path.is_file()]
    assert sum(sizes) < 64_000


def test_an_engine_that_is_started_anew_has_no_verdict_yet(job: Job, python: str, tmp_path: Path) -> None:
    body = (
        "import os, socket, sys, time; port, checked, once = sys.argv[1:]\n"
        "if os.path.exists(once): time.sleep(60)\n"
        "server = socket.create_server(('127.0.0.1', int(port)))\n"
        "while not os.path.exists(checked): time.sleep(0.01)\n"
        "time.sleep(0.3); open(once, 'w'); sys.exit('[Errno 98] address already in use')"
    )
    port, checked, once = {"runtime": "port"}, tmp_path / "checked", tmp_path / "once"
    begin(job, "touch", str(checked), engine=(python, "-c", body, [port], str(checked), str(once)), listens=True)
    until(lambda: verdict(job).get("ok"))
    until(lambda: once.exists() and job.state["step"] == "starting")
    assert verdict(job) == {}
