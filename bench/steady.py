"""What 1, 100 and 1,000 services at rest cost the controller: a tick, a minute, a start."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sqlite3
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, closing, contextmanager
from pathlib import Path
from subprocess import PIPE, Popen
from typing import Any

from api.contract.database import open_database
from api.contract.identity import new_id
from bench.figures import Table, median, ms, percentile
from bench.installation import Installation, Site
from bench.observed import Moment, Observed, observed
from bench.simulated import installation_at_rest, stub_engine
from controller.app import build
from controller.installation import installation_on
from tests.cluster.system import ROOT

SIZES = (1, 100, 1000)
TICKS = 10
INSERT = "INSERT INTO services (id, recipe_name, config) VALUES (?, 'simple/hello', ?)"
UNPACED = "fastest_reading = 15\nsubmit_burst = 100000"
QUEUED = json.dumps({"resources": {"partition": "down"}})


def measure_simulated(folder: Path) -> Table:
    """Return the table of services that run, on a Slurm in memory."""
    columns = (
        "services that run", "CPU ms a tick", "p95", "commands a minute", "of one core, %", "CPU ms a pass",
        "start-up s", "its CPU s", "its passes",
    )  # fmt: skip
    table = Table("At rest: running services, Slurm in memory", columns)
    with ExitStack() as stack:
        port = stack.enter_context(stub_engine())
        workers = []
        for size in SIZES:
            installation = installation_at_rest(folder / f"rest-{size}", size, port)
            worker = stack.enter_context(_worker(installation, size, port))
            workers.append((worker, _answer(worker)))  # it starts alone; all rest together
        for worker, _ in workers:
            _tell(worker)
        found = {size: start | _answer(worker) for size, (worker, start) in zip(SIZES, workers, strict=True)}
    for size, figures in found.items():
        table.add(
            f"{size:,}",
            ms(median(figures["ticks"])),
            ms(percentile(figures["ticks"], 0.95)),
            f"{figures['commands_a_minute']:.1f}",
            f"{figures['core_share'] * 100:.1f}",
            ms(figures["pass"]),
            f"{figures['adopted_wall']:.2f}",
            f"{figures['adopted_cpu']:.2f}",
            str(figures["adopted_passes"]),
        )
    _goals(table, {size: median(f["ticks"]) for size, f in found.items()})
    rates = [figures["commands_a_minute"] for figures in found.values()]
    table.goal("commands a minute, most over least", max(rates) / min(rates), 1.1, "times")
    table.notes += [
        "A tick is one reading: the listing's text parsed, compared, and whatever it wakes put in the queue.",
        "Of one core at rest: with ticks, health checks (2 requests each 10 s and service), lease and change feed.",
        "Start-up: until every service was looked at with a snapshot, and nothing more was due.",
    ]
    return table


def measure_real(site: Site) -> Table:
    """Return the table of services whose jobs are queued, on a real Slurm."""
    installation = Installation(site.folder / "rest", site.cluster, controller=UNPACED)
    try:
        return asyncio.run(_grow(installation))
    finally:
        installation.close()


async def _grow(installation: Installation) -> Table:
    columns = (
        "services that are queued", "CPU ms a tick", "wall ms a tick", "commands a tick", "RPCs a minute",
        "submitted a second",
    )  # fmt: skip
    table = Table("At rest: queued services, a real Slurm", columns)
    ticks: dict[int, float] = {}
    commands: list[float] = []
    rates: list[float] = []
    async with _running(installation) as seen:
        await seen.next_reading()
        present = 0
        for size in SIZES:
            began = Moment.now()
            await declare(installation.folder / "state" / "ai-factory.db", size - present)
            submitted = await seen.calm(size, lambda size=size: _submitted(installation) == size) - began  # type: ignore[misc]
            before, readings = seen.calls, len(seen.readings)
            taken = await seen.ticks(TICKS)
            commands.append((seen.calls - before).total() / (len(seen.readings) - readings))
            ticks[size] = median([tick.cpu for tick in taken])
            wall = median([tick.wall for tick in taken])
            rate = f"{(size - present) / submitted.wall:.0f}" if size > 1 else "–"
            rates.append(await _calls_a_minute(installation, seen))
            table.add(f"{size:,}", ms(ticks[size]), ms(wall), f"{commands[-1]:.1f}", f"{rates[-1]:.0f}", rate)
            present = size
    async with _running(installation) as seen:
        adopted = await seen.calm(SIZES[-1]) - seen.began
        passes = seen.passes
    _goals(table, ticks)
    table.goal("commands a tick, most over least", max(commands) / min(commands), 1.1, "times")
    table.goal("RPCs a minute, most over least", max(rates) / min(rates), 1.5, "times")
    start = f"{adopted.wall:.2f} s ({adopted.cpu:.2f} s CPU, {passes} passes)"
    table.notes += [
        f"Another start with {SIZES[-1]:,}, all of whose jobs were there: {start}.",
        "RPCs: what slurmctld has counted for this user (sdiag) from one reading at rest to the second after it, which "
        "is 30 s. The daemons of this private cluster run under the same user; theirs are among them.",
        "Submitted a second: so many services more in one transaction, until the last has its job.",
    ]
    return table


async def _calls_a_minute(installation: Installation, seen: Observed) -> float:
    """Return how often this user has called slurmctld between two readings at rest, by its own count."""
    began, _ = await seen.next_reading()
    before = await asyncio.to_thread(_calls_of_this_user, installation)
    for _ in range(2):
        ended, _ = await seen.next_reading()
    after = await asyncio.to_thread(_calls_of_this_user, installation)
    return (after - before) * 60 / (ended - began).wall


def _calls_of_this_user(installation: Installation) -> int:
    """Read this user's line of `sdiag`: `root ( 0) count:123 ave_time:…`."""
    told = installation.slurm("sdiag")
    found = re.search(rf"^\s*\S+\s*\(\s*{os.getuid()}\)\s*count:(\d+)", told, re.MULTILINE)
    return int(found[1]) if found else 0


def _goals(table: Table, ticks: dict[int, float]) -> None:
    table.goal(f"CPU of a tick with {SIZES[-1]:,}", ticks[SIZES[-1]] * 1000, 50, "ms")


@asynccontextmanager
async def _running(installation: Installation) -> AsyncIterator[Observed]:
    """Run the real controller in this process."""
    settings = installation.settings
    async with observed(build(await installation_on(await open_database(settings.database_url), settings))) as seen:
        yield seen


async def declare(database: Path, number: int) -> None:
    """Insert so many services in one transaction. The controller, which may be writing, runs in this very loop."""
    await asyncio.to_thread(_insert, database, number)


def _insert(database: Path, number: int) -> None:
    with closing(sqlite3.connect(database, timeout=30)) as connection:
        connection.executemany(INSERT, [(new_id(), QUEUED) for _ in range(number)])
        connection.commit()


def _submitted(installation: Installation) -> int:
    return int(installation.sql("SELECT count(*) FROM attempts WHERE job_id IS NOT NULL")[0][0])


@contextmanager
def _worker(installation: Installation, size: int, port: int) -> Iterator[Popen[str]]:
    """Run one controller in a process of its own."""
    command = [sys.executable, "-m", "bench.steady_worker", str(installation.config), str(size), str(port)]
    log = (installation.folder / "worker.log").open("w")
    with log, Popen(command, stdin=PIPE, stdout=PIPE, stderr=log, text=True, cwd=ROOT) as process:
        try:
            yield process
        finally:
            process.terminate()


def _answer(worker: Popen[str]) -> dict[str, Any]:
    assert worker.stdout is not None
    return dict(json.loads(worker.stdout.readline()))


def _tell(worker: Popen[str]) -> None:
    assert worker.stdin is not None
    worker.stdin.write("\n")
    worker.stdin.flush()
