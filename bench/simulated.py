"""A Slurm that is answered from memory, and installations with as many services at rest as are asked for.

Its texts go through the controller's real parsers; every job runs at once, as if its engine were the one stub.
"""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import sqlite3
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from subprocess import PIPE, Popen

from api.contract.database import open_database
from api.contract.identity import new_id
from api.contract.settings import Settings
from bench.installation import Installation
from controller.app import Controller, build
from controller.slurm.runner import Completed, ProcessRunner
from tests.cluster.system import ROOT
from tests.slurm_cluster import SlurmCluster

FIRST_JOB = 1000
NODE = "node1"
PATIENCE = 60.0
DAY = 86400
SET_BY_THE_DATABASE = {"generation", "version", "change_seq", "created_at", "updated_at"}
CLONED = ("services", "service_status", "attempts", "endpoints")
SERVICE = "first222"
INSERT = "INSERT INTO services (id, recipe_name) VALUES (?, 'inference/vllm_dummy')"


@dataclass(frozen=True, slots=True)
class Running:
    """One job, and between which times it runs."""

    number: int
    started: int
    ends: int


class SimulatedSlurm(ProcessRunner):
    """Answers Slurm's commands itself: what is submitted runs, and never ends."""

    def __init__(self, port: int, jobs: Mapping[str, Running]) -> None:
        super().__init__({}, {})
        self._port = port
        self._jobs = dict(jobs)
        self._listings: dict[str, str] = {}

    async def _run(self, argv: tuple[str, ...], *_: object) -> Completed:
        answer = {"squeue": self._squeue, "sinfo": self._sinfo, "sbatch": self._sbatch}[argv[0]]
        return Completed(argv=argv, exit_code=0, stdout=answer(argv), stderr="")

    def _squeue(self, argv: tuple[str, ...]) -> str:
        fields, mark = _format(argv)
        if fields not in self._listings:
            rows = (_row(token, job) for token, job in self._jobs.items())
            self._listings[fields] = "".join("".join(row[field] + "\0" for field in fields) + "\n" for row in rows)
        return self._listings[fields].replace("\0", mark)

    @staticmethod
    def _sinfo(argv: tuple[str, ...]) -> str:
        mark = _format(argv)[1]
        return f"{NODE}{mark}127.0.0.1{mark}\n"

    def _sbatch(self, argv: tuple[str, ...]) -> str:
        token = next(word for word in argv if word.startswith("--job-name=")).partition("=")[2]
        number, now = FIRST_JOB + len(self._jobs), int(time.time())
        self._jobs[token] = Running(number, now, now + DAY)
        folder = Path(argv[-3])
        (folder / "claim").write_text(json.dumps({"job_id": number, "restarts": 0}))
        (folder / "state.json").write_text(json.dumps({"step": "serving", "port": self._port}))
        self._listings.clear()
        return f"{number}\n"


def _row(token: str, job: Running) -> dict[str, str]:
    times = {"S": str(job.started), "e": str(job.ends)}
    return {"A": str(job.number), "T": "RUNNING", "B": NODE, "j": token, "r": "None"} | times


def _format(argv: tuple[str, ...]) -> tuple[str, str]:
    """Return the letters of the fields and the mark behind each."""
    text = next(word for word in argv if word.startswith("--format=")).removeprefix("--format=")
    mark = "\x1f" + text.split("\x1f")[1] + "\x1f"
    return "".join(re.findall(r"%(\w)", text.replace(mark, " "))), mark


@contextmanager
def stub_engine() -> Iterator[int]:
    """Run the one engine that stands for all, in a process of its own; give its port."""
    process = Popen([sys.executable, "-m", "bench.stub_engine"], stdout=PIPE, text=True, cwd=ROOT)
    try:
        assert process.stdout is not None
        yield int(process.stdout.readline())
    finally:
        process.terminate()
        process.wait()


def installation_at_rest(folder: Path, count: int, port: int) -> Installation:
    """Make an installation with so many services that run and are ready: one comes to be as in earnest, cloned then."""
    installation = Installation(folder, SlurmCluster(folder), controller="fastest_reading = 0.2")
    installation.sql(INSERT, SERVICE)
    asyncio.run(_lead_until_ready(installation, port))
    with closing(sqlite3.connect(installation.folder / "state" / "ai-factory.db")) as connection:
        for number in range(1, count):
            _clone(installation.folder, connection, FIRST_JOB + number)
        connection.commit()
    text = installation.config.read_text().replace("fastest_reading = 0.2", "fastest_reading = 15")
    installation.config.write_text(text)
    return installation


def running_jobs(state_dir: Path) -> dict[str, Running]:
    """Return what the simulated Slurm runs for the installation whose database lies there."""
    with closing(sqlite3.connect(state_dir / "ai-factory.db")) as connection:
        rows = connection.execute("SELECT token, job_id, started_at, ends_at FROM attempts").fetchall()
    return {token: Running(job_id, int(started), int(ends)) for token, job_id, started, ends in rows}


async def simulated_controller(settings: Settings, port: int) -> Controller:
    """Build the real controller on the simulated Slurm."""
    controller = await build(settings, await open_database(settings.database_url))
    controller._runner = SimulatedSlurm(port, running_jobs(settings.state_dir))
    return controller


async def _lead_until_ready(installation: Installation, port: int) -> None:
    controller = await simulated_controller(installation.settings, port)
    ending = asyncio.Event()
    task = asyncio.create_task(controller.run(ending))
    async with asyncio.timeout(PATIENCE):
        while not installation.sql("SELECT 1 FROM endpoints WHERE state = 'ready'"):
            await asyncio.sleep(0.1)
    await asyncio.sleep(1.0)
    ending.set()
    await task


def _clone(folder: Path, connection: sqlite3.Connection, job_id: int) -> None:
    """Copy the rows and the job folder of the first service under another id and another job."""
    own = new_id()
    connection.row_factory = sqlite3.Row
    for table in CLONED:
        for row in connection.execute(
            f"SELECT * FROM {table} WHERE instr(id_of, ?) > 0".replace("id_of", _key(table)), (SERVICE,)
        ):
            values = {k: v.replace(SERVICE, own) if isinstance(v, str) else v for k, v in dict(row).items()}
            values |= {"job_id": job_id} if table == "attempts" else {}
            if table == "services":
                values = {k: v for k, v in values.items() if k not in SET_BY_THE_DATABASE}
            marks = ", ".join("?" * len(values))
            connection.execute(f"INSERT INTO {table} ({', '.join(values)}) VALUES ({marks})", [*values.values()])
    (source,) = (folder / "run").glob(f"*/{SERVICE}")
    target = source.with_name(own)
    shutil.copytree(source, target)
    (attempt,) = target.iterdir()
    (attempt / "claim").write_text(json.dumps({"job_id": job_id, "restarts": 0}))
    attempt.rename(target / attempt.name.replace(SERVICE, own))


def _key(table: str) -> str:
    return "id" if table == "services" else "service_id"
