"""A Slurm that is answered from memory, and installations with as many services at rest as are asked for.

Its texts go through the controller's real parsers; every job runs at once on one of 30 nodes, as if its engine were
the one stub, behind a door of its own.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import sqlite3
import sys
import time
import zlib
from collections import deque
from collections.abc import Collection, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from subprocess import PIPE, Popen
from typing import Any

from api.contract.database import open_database
from api.contract.identity import load_keys, new_id
from api.contract.settings import Settings
from bench.installation import Installation
from bench.stub_engine import tell
from controller.app import Controller, build
from controller.installation import installation_on
from controller.slurm.argv import LIST_FIELDS
from controller.slurm.runner import Completed, ProcessRunner
from tests.cluster.system import ROOT
from tests.slurm_cluster import SlurmCluster

FIRST_JOB = 1000
NODES = tuple(f"node{number}" for number in range(30))
ADDRESSES = tuple((node, "127.0.0.1") for node in NODES)
HEADER = "JOBID\0STATE\0EXEC_HOST\0START_TIME\0END_TIME\0NAME\0REASON\0TIME_LIMIT\0\n"
MIN_JOB_AGE = 300
"""Seconds for which an ended job is still listed: the default of slurm.conf(5)."""
PATIENCE = 60.0
DAY = 86400
SET_BY_THE_DATABASE = {"generation", "version", "change_seq", "created_at", "updated_at"}
CLONED = ("services", "service_status", "attempts", "endpoints")
SERVICE = "first222"
INSERT = "INSERT INTO services (id, recipe_name, replicas) VALUES (?, 'inference/vllm_dummy', ?)"
READY = "SELECT count(*) FROM endpoints WHERE state = 'ready'"
TIMES = ("intent_at", "submitted_at", "claimed_at", "started_at", "launched_at", "serving_at", "ready_at", "ends_at")
AGE = 3600.0
"""Seconds for which all have been running."""


@dataclass(frozen=True, slots=True)
class Running:
    """One job, and between which times it runs."""

    number: int
    started: int
    ends: int


class SimulatedSlurm(ProcessRunner):
    """Answers Slurm's commands itself: what is submitted runs, until it is cancelled or its node fails."""

    def __init__(self, port: int, jobs: Mapping[str, Running], key: bytes) -> None:
        super().__init__({}, {})
        self._port = port
        self._key = key
        self._jobs = dict(jobs)
        self._lines = {token: _line(token, job) for token, job in jobs.items()}
        self._numbers = itertools.count(max((job.number for job in jobs.values()), default=FIRST_JOB - 1) + 1)
        self._ended: deque[tuple[float, str]] = deque()

    def fail(self, nodes: Collection[str]) -> int:
        """Let all jobs on these nodes end with them; return how many that are."""
        lost = [token for token, job in self._jobs.items() if _node(job.number) in nodes]
        for token in lost:
            self._end(token, "NODE_FAIL")
        return len(lost)

    async def _run(self, argv: tuple[str, ...], *_: object) -> Completed:
        if argv[0] == "sacct":
            return Completed(argv=argv, exit_code=1, stdout="", stderr="Slurm accounting storage is disabled\n")
        commands = {"squeue": self._squeue, "sinfo": self._sinfo, "sbatch": self._sbatch, "scancel": self._scancel}
        return Completed(argv=argv, exit_code=0, stdout=commands[argv[0]](argv), stderr="")

    def _squeue(self, argv: tuple[str, ...]) -> str:
        while self._ended and self._ended[0][0] < time.monotonic() - MIN_JOB_AGE:
            del self._lines[self._ended.popleft()[1]]
        return "".join((HEADER, *self._lines.values())).replace("\0", _mark(argv))

    @staticmethod
    def _sinfo(argv: tuple[str, ...]) -> str:
        mark = _mark(argv)
        is_about_states = "%T" in argv[-1]
        rows = [("NODELIST", "STATE" if is_about_states else "NODE_ADDR"), *ADDRESSES]
        return "".join(f"{node}{mark}{'mixed' if is_about_states else value}{mark}\n" for node, value in rows)

    def _sbatch(self, argv: tuple[str, ...]) -> str:
        token, number = _option(argv, "--job-name="), next(self._numbers)
        now = int(time.time())
        self._jobs[token] = Running(number, now, now + DAY)
        self._lines[token] = _line(token, self._jobs[token])
        tell(self._port, f"LIVE {token} {self._key.hex()}")
        write_job_files(Path(argv[-3]), number, self._port)
        return f"{number}\n"

    def _scancel(self, argv: tuple[str, ...]) -> str:
        token = _option(argv, "--name=")
        if token in self._jobs and self._jobs[token].number == int(argv[-1]):
            self._end(token, "CANCELLED")
        return ""

    def _end(self, token: str, state: str) -> None:
        """Show a job as ended, for as long as Slurm would; its engine answers no more."""
        tell(self._port, f"DEAD {token}")
        self._lines[token] = _line(token, self._jobs.pop(token), state)
        self._ended.append((time.monotonic(), token))


def write_job_files(folder: Path, number: int, port: int) -> None:
    """Write what the controller reads of a job whose engine listens."""
    (folder / "claim").write_text(json.dumps({"job_id": number, "restarts": 0}))
    (folder / "state.json").write_text(json.dumps({"step": "serving", "port": port}))


def _node(number: int) -> str:
    return NODES[zlib.crc32(str(number).encode()) % len(NODES)]


def _line(token: str, job: Running, state: str = "RUNNING") -> str:
    """Return a job's line of the listing, with NUL for the mark."""
    values = {"%A": job.number, "%T": state, "%B": _node(job.number), "%S": job.started, "%e": job.ends}
    values |= {"%j": token, "%r": "None", "%l": "1:00:00"}
    return "".join(f"{values[field]}\0" for field in LIST_FIELDS) + "\n"


def _option(argv: tuple[str, ...], name: str) -> str:
    return next(word for word in argv if word.startswith(name)).removeprefix(name)


def _mark(argv: tuple[str, ...]) -> str:
    """Return what the command is to put behind every field."""
    return "\x1f" + _option(argv, "--format=").split("\x1f")[1] + "\x1f"


@contextmanager
def stub_engine() -> Iterator[int]:
    """Run the one engine that stands for all, in a process of its own; give its port."""
    with Popen([sys.executable, "-m", "bench.stub_engine"], stdout=PIPE, text=True, cwd=ROOT) as process:
        try:
            assert process.stdout is not None
            yield int(process.stdout.readline())
        finally:
            process.terminate()


def installation_at_rest(
    folder: Path, count: int, port: int, *, replicas: int = 1, controller: str = "fastest_reading = 15"
) -> Installation:
    """Make an installation with so many services that run and are ready: one comes to be as in earnest, cloned then."""
    hasty = "fastest_reading = 0.2"
    installation = Installation(folder, SlurmCluster(folder), controller=hasty)
    installation.sql(INSERT, SERVICE, replicas)
    asyncio.run(_lead_until_ready(installation, port, replicas))
    with closing(sqlite3.connect(installation.folder / "state" / "ai-factory.db")) as connection:
        earlier = ", ".join(f"{name} = {name} - {AGE}" for name in TIMES)
        connection.execute(f"UPDATE attempts SET {earlier}")
        _clone(installation.folder, connection, count - 1, port)
        connection.commit()
    installation.config.write_text(installation.config.read_text().replace(hasty, controller))
    return installation


def running_jobs(state_dir: Path) -> dict[str, Running]:
    """Return what the simulated Slurm runs for the installation whose database lies there."""
    with closing(sqlite3.connect(state_dir / "ai-factory.db")) as connection:
        rows = connection.execute("SELECT token, job_id, started_at, ends_at FROM attempts").fetchall()
    return {token: Running(job_id, int(started), int(ends)) for token, job_id, started, ends in rows}


async def simulated_controller(settings: Settings, port: int) -> Controller:
    """Build the real controller on the simulated Slurm."""
    installation = await installation_on(await open_database(settings.database_url), settings)
    jobs, key = running_jobs(settings.state_dir), load_keys(settings.key_file)[0]
    tell(port, *(f"LIVE {token} {key.hex()}" for token in jobs))
    slurm = SimulatedSlurm(port, jobs, key)
    return build(replace(installation, runner=slurm))


async def _lead_until_ready(installation: Installation, port: int, replicas: int) -> None:
    controller = await simulated_controller(installation.settings, port)
    ending = asyncio.Event()
    task = asyncio.create_task(controller.run(ending))
    async with asyncio.timeout(PATIENCE):
        while installation.sql(READY)[0][0] < replicas:
            await asyncio.sleep(0.1)
    await asyncio.sleep(1.0)
    ending.set()
    await task
    await controller._installation.database.close()


def _clone(folder: Path, connection: sqlite3.Connection, copies: int, port: int) -> None:
    """Copy the rows of the first service under other ids and jobs, and what the controller reads of job folders."""
    connection.row_factory = sqlite3.Row
    numbers = itertools.count(FIRST_JOB + 1000)
    (jobs,) = (folder / "run").glob(f"*/{SERVICE}")
    ids = [new_id() for _ in range(copies)]
    for table in CLONED:
        key = "id" if table == "services" else "service_id"
        for row in connection.execute(f"SELECT * FROM {table} WHERE {key} = ?", (SERVICE,)).fetchall():
            names = [name for name in row.keys() if table != "services" or name not in SET_BY_THE_DATABASE]  # noqa: SIM118
            values = [{name: _renamed(row[name], own) for name in names} for own in ids]
            for each in values if table == "attempts" else ():
                each["job_id"] = next(numbers)
                each["node"] = _node(each["job_id"])
                attempt = jobs.with_name(each["service_id"]) / each["token"]
                attempt.mkdir(parents=True)
                write_job_files(attempt, each["job_id"], port)
            marks = ", ".join(f":{name}" for name in names)
            connection.executemany(f"INSERT INTO {table} ({', '.join(names)}) VALUES ({marks})", values)


def _renamed(value: Any, own: str) -> Any:
    return value.replace(SERVICE, own) if isinstance(value, str) else value
