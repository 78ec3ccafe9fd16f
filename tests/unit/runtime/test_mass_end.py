"""Hundreds of real doors that close at once: how often the cluster is read, and at what pace jobs are sent."""

from __future__ import annotations

import asyncio
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from api.contract.configuration import load
from bench.observed import observed
from bench.simulated import NODES, SimulatedSlurm, installation_at_rest, running_jobs, simulated_controller, stub_engine
from bench.stub_engine import tell
from bench.watching_worker import Course
from controller.cluster import watches
from controller.runtime.reader import AFTER_ENDS

pytestmark = pytest.mark.proof

FASTEST, BURST, RATE = 2.0, 20, 40.0
PACE = f"fastest_reading = {FASTEST:g}\nsubmit_burst = {BURST}\nsubmit_rate = {RATE:g}"
PATIENCE = 120.0


async def test_a_thousand_closings_cause_as_many_readings_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watches, "PER_SECOND", 1_000_000)
    with ExitStack() as stack:
        course = Course(1_000, [stack.enter_context(stub_engine()) for _ in range(2)])
        await course.run()
    assert (len(course.closed), len(course.readings)) == (1_000, len(AFTER_ENDS))


class CountedSlurm(SimulatedSlurm):
    """It notes when each command was run."""

    times: list[tuple[str, float]]

    async def _run(self, argv: tuple[str, ...], *more: object) -> object:  # type: ignore[override]
        self.times.append((argv[0], time.monotonic()))
        return await super()._run(argv, *more)

    def since(self, began: float, command: str) -> list[float]:
        return [at - began for name, at in self.times if name == command and at >= began]


def test_commands_keep_their_pace_when_a_hundred_engines_die_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    services = 100
    monkeypatch.setattr(watches, "PER_SECOND", 1_000_000)
    monkeypatch.setattr("bench.simulated.SimulatedSlurm", CountedSlurm)
    monkeypatch.setattr(CountedSlurm, "times", [], raising=False)
    with stub_engine() as port:
        installation = installation_at_rest(tmp_path / "site", services, port, controller=PACE)
        reads, sends = asyncio.run(_let_all_die(installation.config, services, port))
    assert len(sends) == services
    for number, at in enumerate(sends, 1):
        assert number <= BURST + RATE * at + 1, f"{number} were sent within {at:.2f} s"
    # Twice because of the ends, and beside that in the rhythm.
    assert len(reads) <= len(AFTER_ENDS) + sends[-1] / FASTEST + 1


async def _let_all_die(config: Path, services: int, port: int) -> tuple[list[float], list[float]]:
    """Return when the cluster was read and when jobs were sent, in seconds since, until all are replaced."""
    settings = load(config=str(config))
    controller = await simulated_controller(settings, port)
    slurm = controller._installation.runner
    assert isinstance(slurm, CountedSlurm)
    async with observed(controller) as seen:
        await seen.calm(services)
        assert seen.leading is not None
        probes = seen.leading.cluster.probes
        async with asyncio.timeout(PATIENCE):
            while probes.watches.held < services:  # type: ignore[attr-defined]
                await asyncio.sleep(0.02)
        tokens = list(running_jobs(settings.state_dir))
        began = time.monotonic()
        slurm.fail(NODES)
        await asyncio.to_thread(tell, port, *(f"DEAD {token}" for token in tokens))
        async with asyncio.timeout(PATIENCE):
            while len(slurm.since(began, "sbatch")) < services:
                await asyncio.sleep(0.02)
    sends = slurm.since(began, "sbatch")
    return [at for at in slurm.since(began, "squeue") if at <= sends[-1]], sends
