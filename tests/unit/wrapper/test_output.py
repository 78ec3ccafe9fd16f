"""Logs under an engine that writes as much as it can, and what becomes of them when those who write them die."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import time
from pathlib import Path

import pytest

from controller.wrapper.logs.bounded import BoundedLog
from controller.wrapper.logs.output import bounded
from controller.wrapper.logs.reading import Logs

from .jobs import Job, alive, until

COUNTING = """
import itertools, os, signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
for number in itertools.count():
    os.write(1, b"%d %s\\n" % (number, b"x" * 90))
    time.sleep(0.0005)
"""
FLOOD = """
import os, time
end = time.monotonic() + 3
block = b"".join(b"%d %s\\n" % (number, b"x" * 90) for number in range(1000))
os.write(1, b"first words\\n")
while time.monotonic() < end:
    os.write(1, block)
    os.write(2, block)
os.write(2, b"ValueError: last words\\n")
os._exit(3)
"""


def numbers(path: Path) -> list[int]:
    return [int(line.split()[0]) for line in path.read_text().splitlines()]


def taken(folder: Path, log: str) -> int:
    """Return the bytes that a log takes: a file of two names once."""
    files: dict[int, int] = {}
    for path in folder.glob(f"{log}*"):
        try:
            found = path.stat()
        except FileNotFoundError:
            continue
        files[found.st_ino] = found.st_size
    return sum(files.values())


def writer_of(log: Path) -> int:
    """Return who has a log open for writing, by its id; 0: nobody, or it can't be said yet."""
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            for opened in (process / "fd").iterdir():
                if opened.name not in ("0", "1", "2") and opened.readlink() == log:
                    return int(process.name)
    return 0


def test_not_a_line_is_lost_between_one_file_and_the_next(job: Job, python: str) -> None:
    job.write(command=[python, "-c", COUNTING], log_bytes=50_000)
    job.start()
    log, before, first = (job.folder / f"stdout.log{ending}" for ending in ("", ".1", ".0"))
    until(lambda: before.exists() and numbers(before)[0] > 0)
    job.send(signal.SIGTERM)
    assert job.wait() == 0
    found = numbers(before) + numbers(log)
    assert found == list(range(found[0], found[-1] + 1))
    assert numbers(first) == list(range(numbers(first)[-1] + 1))
    assert max(path.stat().st_size for path in (log, before, first)) <= 50_000
    assert {path.stat().st_mode & 0o777 for path in (before, log)} == {0o600}
    assert {path.name for path in job.folder.glob("*std*")} == {log.name, before.name, first.name, "stderr.log"}


def test_a_flood_takes_no_more_than_three_times_its_bound(job: Job, python: str) -> None:
    most = 2_000_000
    job.write(command=[python, "-c", FLOOD], log_bytes=most)
    process = job.start()
    largest = {"stdout.log": 0, "stderr.log": 0}
    while process.poll() is None:
        for log, found in largest.items():
            largest[log] = max(found, taken(job.folder, log))
        time.sleep(0.002)
    assert process.returncode == 3
    for log, found in largest.items():
        assert 2 * most < found <= 3 * most, log
    assert (job.folder / "stdout.log.0").read_text().startswith("first words\n")
    assert job.exit["message"] == "ValueError: last words", "what was on its way is waited for"
    assert job.stderr.endswith("ValueError: last words\n")


def test_an_engine_does_not_notice_that_the_logs_writer_dies(job: Job, python: str) -> None:
    job.write(command=[python, "-c", COUNTING], log_bytes=10_000_000)
    job.start()
    log = job.folder / "stdout.log"
    until(lambda: len(numbers(log)) > 100 if log.read_text().endswith("\n") else False)
    writer = until(lambda: writer_of(log))
    os.kill(writer, signal.SIGKILL)
    length = log.stat().st_size
    until(lambda: log.stat().st_size > length + 10_000)
    assert writer_of(log) not in (0, writer)
    job.send(signal.SIGTERM)
    assert job.wait() == 0
    assert numbers(log) == list(range(len(numbers(log))))
    assert "what writes the logs had died" in job.stderr


def test_what_is_on_its_way_when_an_engine_ends_is_waited_for(job: Job, python: str) -> None:
    go = job.folder / "go"
    code = (
        "import os, pathlib, sys, time\n"
        "os.write(1, b'begun\\n')\n"
        f"while not pathlib.Path({str(go)!r}).exists(): time.sleep(0.01)\n"
        "sys.exit('ValueError: last words')"
    )
    job.write(command=[python, "-c", code], log_bytes=50_000)
    process = job.start()
    log = job.folder / "stdout.log"
    until(lambda: log.stat().st_size > 0)
    writer = until(lambda: writer_of(log))
    os.kill(writer, signal.SIGSTOP)
    go.touch()
    time.sleep(1.5)  # all that would end without it has ended by then
    assert process.poll() is None
    os.kill(writer, signal.SIGCONT)
    assert job.wait() == 1
    assert job.exit["message"] == "ValueError: last words"


def test_nobody_is_left_when_the_wrapper_is_killed(job: Job, python: str) -> None:
    job.write(command=[python, "-c", COUNTING], log_bytes=50_000)
    process = job.start()
    log = job.folder / "stdout.log"
    until(lambda: log.stat().st_size > 0)
    writer = until(lambda: writer_of(log))
    process.kill()
    process.wait(60)
    until(lambda: not alive(writer))
    length = log.stat().st_size
    time.sleep(0.05)
    assert log.stat().st_size == length


def test_logs_may_grow_where_nothing_bounds_them(job: Job, python: str) -> None:
    job.run_command(python, "-c", "print('x' * 5000)", log_bytes=0)
    assert (len(job.stdout), list(job.folder.glob("*.log.*"))) == (5001, [])


def test_what_goes_somewhere_else_is_left_alone(tmp_path: Path) -> None:
    """The wrapper is run by hand at times."""
    (tmp_path / "stdout.log").touch()
    before = os.fstat(1).st_ino
    with bounded(tmp_path, 100):
        assert os.fstat(1).st_ino == before


# One log


def test_lines_stay_whole_where_they_fit(tmp_path: Path) -> None:
    log = BoundedLog(tmp_path / "log", 10)
    for text in (b"one\n", b"two\nthr", b"ee\nfour\n", b"a line too long\n", b"", b"end\n"):
        log.write(text)
    names = ("log.0", "log.1", "log")
    assert [(tmp_path / name).read_bytes() for name in names] == [b"one\ntwo\n", b"a line too", b" long\nend\n"]


def test_a_log_that_can_not_be_turned_over_begins_anew(tmp_path: Path) -> None:
    (tmp_path / "log.1").mkdir()
    log = BoundedLog(tmp_path / "log", 10)
    for number in range(100):
        log.write(b"line %d\n" % number)
        assert (tmp_path / "log").stat().st_size <= 10
    assert (tmp_path / "log").read_bytes() == b"line 99\n"


def test_what_could_not_be_written_is_told_once_it_can(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = BoundedLog(tmp_path / "log", 1000)

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", full)
        log.write(b"12345\n")
        log.write(b"6\n")
    log.write(b"7\n")
    assert (tmp_path / "log").read_text() == "\nwrapper: 8 bytes of this log could not be written\n7\n"


def test_the_last_lines_are_found_in_both(tmp_path: Path) -> None:
    log = BoundedLog(tmp_path / "stdout.log", 100)
    logs = Logs(tmp_path)
    log.write(b"".join(b"%d\n" % number for number in range(40)))
    log.write(b"ValueError: why\n")
    found = logs.lines()
    assert (found[-2:], found.count("39")) == (["39", "ValueError: why"], 1)
    assert re.fullmatch(r"\d+", found[0])
