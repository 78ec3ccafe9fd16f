"""One controller with N services on the simulated Slurm, put through its paces, each one from calm to calm.

`python -m bench.scale_worker CONFIG N PORT` prints the figures as one line of JSON.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path

from api.contract.configuration import load
from bench.observed import PATIENCE, Moment, Observed, observed
from bench.simulated import NODES, SERVICE, SimulatedSlurm, simulated_controller
from controller.runtime.leading import Leading

TICKS = 20
SLOWEST = 15.0
"""Seconds between two readings at rest."""
SCALE_ONE = f"UPDATE services SET replicas = 2 WHERE id = '{SERVICE}'"
SCALE_ALL = "UPDATE services SET replicas = 2 WHERE desired_state = 'running'"


@dataclass(frozen=True, slots=True)
class Phase:
    """What one phase took."""

    wall: float
    cpu: float
    statements: int
    commands: int
    passes: int
    megabytes: int
    """Resident at its end."""


@dataclass(slots=True)
class Course:
    """The phases of one controller."""

    seen: Observed
    slurm: SimulatedSlurm
    database: Path
    phases: dict[str, Phase] = field(default_factory=dict)
    _counted: tuple[int, int, int] = (0, 0, 0)

    async def start(self, services: int) -> None:
        """Adopt everything."""
        ended = await self.seen.calm(services)
        self._note("start", ended - self.seen.began)

    async def rest(self) -> list[float]:
        """Wait until it reads as rarely as it ever does; watch it for one such interval, then have it read."""
        before, _ = await self.seen.next_reading()
        while True:
            self._count()
            after, _ = await self.seen.next_reading()
            if after.wall - before.wall > SLOWEST - 1:
                break
            before = after
        self._note("rest", after - before)
        return [tick.cpu for tick in await self.seen.ticks(TICKS)]

    async def change_one(self) -> None:
        """Scale one service down."""
        began = await self._write(SCALE_ONE)
        cancelled = await self._until(lambda: self.seen.calls["scancel"] > 0)
        ended = await self.seen.calm(0)
        self._note("change of one", Moment((cancelled - began).wall, (ended - began).cpu))

    async def change_all(self, services: int) -> None:
        """Scale all others down."""
        cancels = self.seen.calls["scancel"] + services - 1
        began = await self._write(SCALE_ALL)
        await self._until(
            lambda: self.seen.calls["scancel"] == cancels and not self._leading.cluster.tracked.is_changing
        )
        self._note("change of all", await self.seen.calm(0) - began)

    async def fail_nodes(self) -> None:
        """Let a third of the nodes fail."""
        self._count()
        before = self.seen.calls["sbatch"]
        lost = self.slurm.fail(NODES[::3])
        self._leading.cluster.rhythm.hurry()
        began = Moment.now()
        ended = await self._until(lambda: self.seen.calls["sbatch"] - before == lost)
        self._note(f"node failure, {lost:,} jobs", ended - began)

    @property
    def _leading(self) -> Leading:
        assert self.seen.leading is not None
        return self.seen.leading

    async def _write(self, statement: str) -> Moment:
        """Change what is wanted, as people do by SQL; return when that was committed."""
        self._count()
        await asyncio.to_thread(_execute, self.database, statement)
        return Moment.now()

    @staticmethod
    async def _until(reached: Callable[[], bool]) -> Moment:
        async with asyncio.timeout(PATIENCE):
            while not reached():
                await asyncio.sleep(0.005)
        return Moment.now()

    def _count(self) -> None:
        """Count from here."""
        self._counted = self._counts()

    def _counts(self) -> tuple[int, int, int]:
        return self.seen.statements, self.seen.calls.total(), self.seen.passes

    def _note(self, name: str, took: Moment) -> None:
        statements, commands, passes = (a - b for a, b in zip(self._counts(), self._counted, strict=True))
        self.phases[name] = Phase(took.wall, took.cpu, statements, commands, passes, memory("VmRSS"))
        print(name, self.phases[name], file=sys.stderr, flush=True)


async def main(config: str, services: int, port: int) -> None:
    """Run the course."""
    settings = load(config=config)
    controller = await simulated_controller(settings, port)
    slurm = controller._installation.runner
    assert isinstance(slurm, SimulatedSlurm)
    async with observed(controller) as seen:
        course = Course(seen, slurm, settings.state_dir / "ai-factory.db")
        await course.start(services)
        ticks = await course.rest()
        await course.change_one()
        await course.change_all(services)
        await course.fail_nodes()
    phases = {name: asdict(phase) for name, phase in course.phases.items()}
    print(json.dumps({"phases": phases, "ticks": ticks, "peak": memory("VmHWM")}))


def _execute(database: Path, statement: str) -> None:
    with closing(sqlite3.connect(database, timeout=60)) as connection:
        connection.execute(statement)
        connection.commit()


def memory(kind: str) -> int:
    """Return a figure of this process's memory in megabytes (proc(5), status)."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(kind))
    return int(line.split()[1]) // 1024


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
