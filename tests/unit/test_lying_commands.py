"""The commands that `make chaos` puts before Slurm's: the truth word for word, and each lie as it is called."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.cluster.lying_commands import LIAR, LIES

REAL = """#!/bin/bash
echo "$@" >>"${0%/*}/done"
mark=${1#--format=}
for id in 1 2 3 4; do printf '%s%s%s%s\\n' "$id" "$mark" RUNNING "$mark"; done
"""


class Stage:
    """A command in a folder of its own, and the liar before it."""

    def __init__(self, folder: Path, command: str) -> None:
        self.folder = folder
        self.command = command
        self.real = folder / "real"
        self.real.write_text(REAL)
        self.real.chmod(0o755)
        (folder / f"{command}.answers").mkdir()
        shutil.copy(LIAR, folder)

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        argv = [sys.executable, "-IS", str(self.folder / "liar.py"), self.command, str(self.real), *arguments]
        return subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)

    def ask(self, mark: str) -> tuple[int, list[str]]:
        with self.start(f"--format=\x1f{mark}\x1f") as process:
            said, _ = process.communicate(timeout=30)
        return process.returncode, said.splitlines()

    def lie(self, lie: str) -> None:
        (self.folder / f"{self.command}.lie").write_text(lie)

    def done(self) -> int:
        done = self.folder / "done"
        return len(done.read_text().splitlines()) if done.exists() else 0


def line(number: int, mark: str) -> str:
    return f"{number}\x1f{mark}\x1fRUNNING\x1f{mark}\x1f"


@pytest.fixture
def squeue(tmp_path: Path) -> Stage:
    return Stage(tmp_path, "squeue")


def test_the_truth_is_word_for_word_what_the_command_says(squeue: Stage) -> None:
    assert squeue.ask("a") == (0, [line(n, "a") for n in (1, 2, 3, 4)])


def test_an_old_answer_bears_the_mark_of_the_new_question(squeue: Stage) -> None:
    squeue.ask("a")
    (answer,) = (squeue.folder / "squeue.answers").iterdir()
    answer.rename(squeue.folder / "squeue.yesterday")
    squeue.real.write_text("#!/bin/bash\n")
    squeue.lie("old")
    assert squeue.ask("b") == (0, [line(n, "b") for n in (1, 2, 3, 4)])
    assert list((squeue.folder / "squeue.answers").iterdir()) == []


@pytest.mark.parametrize(
    ("lie", "code", "lines"),
    [
        ("half of the lines", 0, [line(1, "a"), line(2, "a")]),
        ("cut in mid-line", 0, [line(1, "a"), line(2, "a"), line(3, "a")[:9]]),
        ("empty", 0, [line(1, "a")]),
        ("no word", 0, []),
        ("done, but exit 1", 1, [line(n, "a") for n in (1, 2, 3, 4)]),
    ],
)
def test_what_it_says_is_not_what_was(squeue: Stage, lie: str, code: int, lines: list[str]) -> None:
    squeue.lie(lie)
    assert squeue.ask("a") == (code, lines)
    assert squeue.done() == 1


def test_a_cancel_may_be_acknowledged_and_not_done(tmp_path: Path) -> None:
    scancel = Stage(tmp_path, "scancel")
    scancel.lie("nothing done")
    assert scancel.ask("a") == (0, [])
    assert scancel.done() == 0


def test_what_is_late_is_done_even_if_its_caller_is_killed(tmp_path: Path) -> None:
    sbatch = Stage(tmp_path, "sbatch")
    liar = tmp_path / "liar.py"
    liar.write_text(liar.read_text().replace("LATE = 15.0", "LATE = 2.5"))
    sbatch.lie("late, then done")
    with sbatch.start("--job-name=token") as process:
        until = time.monotonic() + 30
        while not list(tmp_path.glob("late.*")):
            assert time.monotonic() < until
        process.kill()
    assert sbatch.done() == 0
    while list(tmp_path.glob("late.*")):
        assert time.monotonic() < until
        time.sleep(0.02)
    assert sbatch.done() == 1


def test_sbatch_is_written_down_under_its_token(tmp_path: Path) -> None:
    sbatch = Stage(tmp_path, "sbatch")
    with sbatch.start("--job-name=x", "--job-name=token", "script") as process:
        process.communicate(timeout=30)
    assert (tmp_path / "commands").read_text().split(" ")[2:] == ["sbatch", "token\n"]


def test_no_lie_is_unknown_to_the_liar() -> None:
    program = LIAR.read_text()
    for lies in LIES.values():
        for lie in lies:
            assert f'"{lie}"' in program
