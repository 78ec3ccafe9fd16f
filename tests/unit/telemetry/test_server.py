"""The controller itself, while others hold connections to its metrics."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.descriptors import ROOT, STRANGER, idle, limited_to

DESCRIPTORS = 256
CONFIG = """
state_dir = "{folder}/state"
run_dir = "{folder}/run"
[controller]
metrics_port = {port}
fastest_reading = 0.1
slowest_reading = 0.1
[slurm]
bin_dir = "{folder}/bin"
"""


LISTS_NOTHING = '#!/bin/sh\nfor word; do case $word in --format=*) echo "${word#*=}" ;; esac; done\n'
"""The header alone: that it is a listing."""


class Running:
    """A controller whose Slurm has no jobs."""

    def __init__(self, folder: Path, database: Path) -> None:
        for name in ("state", "run", "bin"):
            (folder / name).mkdir()
        shutil.copy(database, folder / "state/ai-factory.db")
        for name in ("squeue", "sacct", "sinfo", "sbatch", "scancel"):
            (folder / "bin" / name).write_text(LISTS_NOTHING)
            (folder / "bin" / name).chmod(0o755)
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        (folder / "config.toml").write_text(CONFIG.format(folder=folder, port=self.port))
        command = [sys.executable, "-m", "controller", "--config", str(folder / "config.toml"), "run"]
        self.log = folder / "log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [*limited_to(DESCRIPTORS), *command],
                cwd=ROOT, stderr=log, env={"PATH": os.environ["PATH"], "HOME": str(folder)},
            )  # fmt: skip

    def ask(self, path: str) -> bytes:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(f"http://127.0.0.1:{self.port}{path}", timeout=10) as answer:
            return bytes(answer.read())

    def health(self) -> Any:
        return json.loads(self.ask("/health"))

    def readings(self) -> dict[str, float]:
        """Return how many readings of Slurm there were, by how they ended."""
        families = text_string_to_metric_families(self.ask("/metrics").decode())
        return {
            sample.labels["result"]: sample.value
            for family in families
            for sample in family.samples
            if sample.name == "ai_factory_readings_total"
        }

    def leads(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        try:
            return bool(self.health()["leader"])
        except urllib.error.URLError:
            return False


@pytest.fixture
def running(tmp_path: Path, sqlite_template: Path) -> Iterator[Running]:
    running = Running(tmp_path, sqlite_template)
    until(running.leads)
    yield running
    running.process.terminate()
    assert running.process.wait(60) == 0


def until(true: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def goes_on_reading(running: Running) -> None:
    """See that Slurm is read on, and each time well."""
    before = sum(running.readings().values())
    until(lambda: sum(running.readings().values()) >= before + 3)
    assert running.readings()["failed"] == 0
    assert (running.health()["status"], running.health()["reading_failure"]) == ("healthy", None)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as another user")
def test_a_neighbour_harms_nothing(running: Running) -> None:
    """He had kept it from starting squeue, and filled the disk with its complaints."""
    with idle(running.port, 2000, uid=STRANGER) as neighbour:
        until(lambda: neighbour.still_open() <= DESCRIPTORS // 8)
        goes_on_reading(running)
        assert running.health()["short_of"] == []
        until(lambda: neighbour.still_open() == 0)
    assert len(running.log.read_bytes()) < 50_000


def test_who_comes_as_the_operator_can_not_keep_it_for_long(running: Running) -> None:
    with idle(running.port, 2000) as relay:
        until(lambda: relay.still_open() == 0)
        until(lambda: running.health()["reading_failure"] is None)
    assert "no file descriptor is left" in running.log.read_text()
    assert len(running.log.read_bytes()) < 50_000
