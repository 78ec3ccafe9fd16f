"""Two controllers on one database: one leads, the other takes over, and one that wakes up late does no harm."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import sqlite3
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.engines import RECIPE, Journal
from tests.cluster.lying_commands import Commands
from tests.cluster.matching import differences
from tests.cluster.on_postgres import PostgresSystem
from tests.cluster.system import PATIENCE, System, wait_for
from tests.postgres_server import PostgresServer
from tests.slurm_cluster import SlurmCluster

pytestmark = pytest.mark.cluster

LEASE = 3.0
QUICK = {"fastest_reading": "0.5", "absence_grace": "2"}
FIRST, SECOND = "controller-1", "controller-2"
AS_OURSELVES = () if os.geteuid() == 0 else ("--map-current-user", "--keep-caps")
ELSEWHERE = ("unshare", *AS_OURSELVES, "--uts", "sh", "-c", 'hostname elsewhere && exec "$@"', "sh")
"""Puts a program on what it takes for another host: there it can't see whether the leader's process lives."""

_numbers = itertools.count()


class Pair:
    """An installation with its watchers, and services that are wanted."""

    def __init__(self, system: System) -> None:
        self.system = system
        self.journal = Journal(system)
        self.commands = Commands(system)
        self.wanted: dict[str, int] = {}

    def create(self, **config: Any) -> str:
        """Create a service that is wanted."""
        key = self.system.create(RECIPE, **config)
        self.wanted[key] = int(config.get("replicas", 1))
        return key

    def delete(self, key: str) -> None:
        """Have a service deleted; nothing is waited for."""
        assert self.system.client.delete(f"/api/v1/services/{key}").status_code == 200
        self.wanted[key] = 0

    def term(self) -> tuple[int, str]:
        """Return the epoch, and the name of the controller that leads."""
        row = self.system.sql("SELECT epoch, holder FROM leases")[0]
        pid = int(row["holder"].split("/")[-2]) if row["holder"] else 0
        return row["epoch"], next((name for name in (FIRST, SECOND) if self.system.has(name, pid)), "")

    def wait_leader(self) -> tuple[int, str]:
        """Wait until somebody leads; return the epoch, and the controller's name."""
        return wait_for(
            lambda: (term := self.term())[1] and term, "one of them leads", story=lambda: "\n".join(self.logs())
        )

    def wait_led_by(self, name: str) -> int:
        """Wait until that one leads; return its epoch."""
        wait_for(lambda: self.term()[1] == name, f"{name} leads", story=lambda: "\n".join(self.logs()))
        return self.term()[0]

    def has_kept(self, name: str, epoch: int) -> bool:
        """Whether a term is that one's still, or over: where the machine is busy, another may have followed."""
        now, leader = self.term()
        return now > epoch or (now == epoch and leader in (name, ""))

    def settle(self) -> None:
        """Wait until the cluster is as wanted."""
        wait_for(
            lambda: not differences(self.system, self.wanted),
            "the cluster is as wanted",
            PATIENCE,
            lambda: "\n".join([*differences(self.system, self.wanted), *self.logs()]),
        )

    def logs(self) -> list[str]:
        """Return the ends of both logs."""
        files = [self.system.folder / f"{name}.log" for name in (FIRST, SECOND)]
        return [line for file in files if file.exists() for line in file.read_text().splitlines()[-40:]]

    def judge(self) -> None:
        """Nothing was sent or run twice, and nothing cancelled that was not durably closed before."""
        assert self.journal.doubles() == []
        sent = Counter(token for _, _, token in self.commands.calls("sbatch"))
        assert {token: count for token, count in sent.items() if count > 1} == {}
        closed = {row[0]: row[1] for row in self.system.sql("SELECT token, closed_at FROM attempts")}
        early = [call for call in self.commands.calls("scancel") if (closed[call[2]] or float("inf")) > call[0]]
        assert early == []


@pytest.fixture(params=["sqlite", "postgresql"])
def pair(request: pytest.FixtureRequest, slurm_cluster: SlurmCluster) -> Iterator[Pair]:
    folder = Path(tempfile.mkdtemp(prefix="af-test-"))
    if request.param == "sqlite":
        system = System(folder, slurm_cluster, "apptainer")
    else:
        server = request.getfixturevalue("postgres_server")
        system = PostgresSystem(folder, slurm_cluster, "apptainer", server, f"pair_{next(_numbers)}")
    pair = Pair(system)
    system.migrate()
    try:
        system.start("api")
        yield pair
    finally:
        system.close()
    shutil.rmtree(folder)


def start(pair: Pair, *, apart: bool, failpoint: str = "", lease: float = LEASE) -> None:
    """Start the leader, then the other, on another host as it seems."""
    if apart and subprocess.run([*ELSEWHERE, "true"], check=False, capture_output=True).returncode != 0:
        pytest.skip("this user may not make a name space of its own")
    settings = {**QUICK, "lease": str(lease)}
    pair.system.start(FIRST, failpoint=failpoint, **settings)
    wait_for(lambda: pair.system.sql("SELECT 1 FROM leases") and pair.term()[1] == FIRST, "the first one leads")
    pair.system.start(SECOND, under=ELSEWHERE if apart else (), **settings)
    log = pair.system.folder / f"{SECOND}.log"
    wait_for(lambda: log.exists() and "standing by" in log.read_text(), "the second one stands by")


@pytest.mark.proof
@pytest.mark.parametrize("apart", [False, True], ids=["one host", "two hosts"])
def test_a_killed_leader_is_followed_within_twice_the_lease(pair: Pair, apart: bool) -> None:
    # On one host its death is seen; of its lease, renewed at each third of it, some two thirds are left.
    lease, most = (LEASE, 2 * LEASE + 3.0) if apart else (4 * LEASE, 2 * LEASE)
    start(pair, apart=apart, lease=lease)
    kept = pair.create(replicas=2)
    pair.settle()
    before = pair.system.attempts(kept)
    doomed = pair.create()
    for _ in range(3):
        pair.create()
    pair.delete(doomed)
    epoch, leader = pair.wait_leader()
    pair.system.kill(leader)
    killed = time.monotonic()
    wait_for(lambda: pair.term()[0] > epoch, "the other leads", story=lambda: "\n".join(pair.logs()))
    assert time.monotonic() - killed < most
    pair.wait_led_by(SECOND if leader == FIRST else FIRST)
    pair.settle()
    assert [(a["token"], a["job_id"]) for a in pair.system.attempts(kept)] == [
        (a["token"], a["job_id"]) for a in before
    ]
    pair.judge()


@pytest.mark.parametrize("point", ["before sbatch", "after sbatch", "before scancel"])
def test_a_leader_that_sleeps_through_its_lease_does_no_harm_when_it_wakes(pair: Pair, point: str) -> None:
    start(pair, apart=True, failpoint=f"stop {point}")
    key = pair.create()
    if point == "before scancel":
        pair.settle()
        pair.delete(key)
    wait_for(lambda: is_stopped(pair.system.pid(FIRST)), "the leader sleeps")
    wait_for(lambda: others_can_write(pair, FIRST), "it sleeps outside of a transaction")
    epoch = pair.wait_led_by(SECOND)
    new = pair.create()
    wait_for(lambda: pair.system.status(new) == "running", "the other does the work")
    pair.system.send(FIRST, signal.SIGCONT)
    log = pair.system.folder / f"{FIRST}.log"
    wait_for(
        lambda: "no longer leading" in log.read_text(), "the first one knows", story=lambda: "\n".join(pair.logs())
    )
    pair.settle()
    assert pair.has_kept(SECOND, epoch)
    pair.judge()


@pytest.mark.parametrize("pair", ["postgresql"], indirect=True)
def test_the_database_restarts_under_load(pair: Pair, postgres_server: PostgresServer) -> None:
    start(pair, apart=True)
    kept = pair.create(replicas=2)
    pair.settle()
    before = {a["token"]: a["job_id"] for a in pair.system.attempts(kept)}
    for pause in (0.0, 5.0):
        sent = len(pair.commands.calls("sbatch"))
        started = [pair.create() for _ in range(3)]
        pair.delete(started[0])
        wait_for(lambda sent=sent: len(pair.commands.calls("sbatch")) > sent, "they are being started")
        postgres_server.stop()
        time.sleep(pause)  # how long it is away
        postgres_server.start()
    pair.settle()
    assert {a["token"]: a["job_id"] for a in pair.system.attempts(kept)} == before
    pair.judge()


def others_can_write(pair: Pair, sleeper: str) -> bool:
    """Whether the database takes what others write.

    A process that is stopped inside a transaction keeps SQLite locked for all, so it is let go on for a moment then.
    """
    try:
        pair.system.sql("UPDATE leases SET epoch = epoch WHERE epoch < 0")
    except sqlite3.OperationalError:
        pair.system.send(sleeper, signal.SIGCONT)
        time.sleep(0.05)
        pair.system.send(sleeper, signal.SIGSTOP)
        return False
    return True


def is_stopped(pid: int) -> bool:
    """Whether a process was stopped by a signal."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"
