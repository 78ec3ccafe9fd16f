"""Engines that tell on themselves: whom they meet, and which of these meetings count as doubles."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.engines import RECORDED, Journal
from tests.cluster.processes import processes
from tests.cluster.system import wait_for

FIRST, SECOND, THIRD = (f"af-i-s-0-{number}" for number in (1, 2, 3))
OTHER = "af-i-s-1-1"


class StandIn:
    """In place of a system: a folder, and rows of attempts."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.rows = [
            {"token": FIRST, "lane": "main", "beside": None},
            {"token": SECOND, "lane": "b", "beside": "TimeLimit"},
            {"token": THIRD, "lane": "main", "beside": "TimeLimit"},
            {"token": OTHER, "lane": "main", "beside": None},
        ]

    def sql(self, _: str) -> list[dict[str, Any]]:
        return self.rows


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    (tmp_path / "recipes").mkdir()
    return Journal(StandIn(tmp_path))  # type: ignore[arg-type]


@contextmanager
def engine(journal: Journal, token: str, job: int = 1) -> Iterator[int]:
    """Run the engine of an attempt, which does nothing, until it has told of its start."""
    files = journal.system.folder / "jobs" / f"{job}" / token / "files"
    files.mkdir(parents=True)
    (files / "recorded.py").write_text(RECORDED)
    (files / "vllm_dummy_engine.py").write_text("import time\ntime.sleep(600)")
    before = len(journal.starts())
    command = [sys.executable, str(files / "recorded.py"), str(journal.system.folder / "journal")]
    process = subprocess.Popen(command, env=os.environ | {"SLURM_JOB_ID": str(job)})
    try:
        wait_for(lambda: len(journal.starts()) > before, "it tells of its start")
        yield process.pid
    finally:
        process.kill()
        process.wait()


def test_one_after_another_meets_nobody(journal: Journal) -> None:
    for token in (FIRST, SECOND):
        with engine(journal, token):
            pass
    with engine(journal, THIRD), engine(journal, OTHER):
        pass
    assert [start.met for start in journal.starts()] == [()] * 4
    assert journal.doubles() == []


def test_a_successor_with_a_reason_is_no_double_and_without_it_is(journal: Journal) -> None:
    with engine(journal, FIRST), engine(journal, SECOND):
        pass
    assert journal.starts()[-1].met == (FIRST,)
    assert journal.doubles() == []
    journal.system.rows[1]["beside"] = None
    ((start, met),) = journal.doubles()
    assert (start.token, met) == (SECOND, FIRST)


def test_a_third_one_and_the_older_one_again_are_doubles(journal: Journal) -> None:
    with engine(journal, FIRST), engine(journal, SECOND), engine(journal, THIRD):
        pass
    assert [(start.token, met) for start, met in journal.doubles()] == [(THIRD, FIRST)]
    with engine(journal, SECOND, job=2):
        assert journal.doubles()[-1][0].token == SECOND  # a second job under one token


def test_a_suspended_one_is_not_met(journal: Journal) -> None:
    with engine(journal, FIRST) as pid:
        os.kill(pid, signal.SIGSTOP)
        wait_for(lambda: processes()[pid].state == "T", "it is stopped")
        with engine(journal, SECOND):
            assert journal.starts()[-1].met == ()
