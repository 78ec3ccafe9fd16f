"""A real Slurm and the simulated one, behind the same words. Scheduler is the controller's own port."""

from __future__ import annotations

import asyncio
import itertools
import os
import subprocess
import time
from collections.abc import Awaitable, Callable, Collection, Coroutine, Mapping
from pathlib import Path
from typing import Any, Protocol, TypeVar

import pytest

from api.contract.job.token import prefix
from api.contract.launch import Resources, Submission
from controller.core.attempt import Sent
from controller.core.jobs import Job, JobPhase, Maintenance
from controller.ports import Listing
from controller.slurm.environment import reading_environment, submitting_environment
from controller.slurm.runner import Completed, ProcessRunner
from controller.slurm.scheduler import SlurmScheduler
from tests.simulation.adapters import SimScheduler
from tests.simulation.slurm import MIN_JOB_AGE, SimJob, SimMaintenance
from tests.simulation.world import Plan, World
from tests.slurm_cluster import SlurmCluster

INSTALLATION = "sim"
SLEEP = "#!/bin/sh\nexec sleep 300\n"
PATIENCE_OF_COMMANDS = 30.0
"""Seconds that a command may take on a busy machine."""
PATIENCE_IN_VAIN = 3.0
"""Seconds after which one is given up while slurmctld can't answer."""
TIME_LIMIT_MINUTES = 5
Seen = TypeVar("Seen")
Value = TypeVar("Value")
_numbers = itertools.count(1)


class Reading(Protocol):
    """The scheduler, as far as it is tried here."""

    async def list_jobs(self) -> Listing: ...

    async def ended_jobs(self, job_ids: Collection[int]) -> Mapping[int, Job] | None: ...

    async def addresses(self) -> Mapping[str, str]: ...

    async def leaving(self, nodes: Collection[str]) -> Mapping[str, str]: ...

    async def maintenances(self) -> tuple[Maintenance, ...]: ...

    async def cancel(self, token: str, job_id: int) -> None: ...

    async def shorten(self, token: str, minutes: int) -> None: ...

    def next_sequence(self) -> int: ...


class Cluster:
    """What both can do, told in terms of what only one can."""

    scheduler: Reading

    def token(self) -> str:
        """Return a token of this installation that was never used."""
        return f"{prefix(INSTALLATION)}t{os.getpid()}x{next(_numbers)}-0-1"

    async def pass_time(self) -> bool:
        """Let a little time pass; return whether there is patience left."""
        raise NotImplementedError

    async def until(self, look: Callable[[], Awaitable[Seen | None]], what: str) -> Seen:
        """Look until there is something to see."""
        while True:
            if (seen := await look()) is not None:
                return seen
            if not await self.pass_time():
                pytest.fail(f"{what}: it never came to be")

    async def jobs(self, token: str) -> list[Job]:
        """Return the jobs that the listing shows under a token."""
        return [job for job in (await self.scheduler.list_jobs()).jobs if job.token == token]

    async def seen(self, token: str, phase: JobPhase, reason: str = "") -> Job:
        """Wait for a job of that token in that phase."""

        async def look() -> Job | None:
            fits = (j for j in await self.jobs(token) if j.phase is phase and j.reason.startswith(reason))
            return next(fits, None)

        return await self.until(look, f"{token} {phase} {reason}")


class Commands:
    """Slurm's commands. They are given up soon only while nobody answers them."""

    def __init__(self, conf: str) -> None:
        base = dict(os.environ)
        self._patient, self._hasty = (
            ProcessRunner(
                reading_environment(base, conf),
                submitting_environment(base, conf),
                reading_seconds=seconds,
                changing_seconds=seconds,
            )
            for seconds in (PATIENCE_OF_COMMANDS, PATIENCE_IN_VAIN)
        )
        self.are_answered = True

    async def read(self, argv: tuple[str, ...]) -> Completed:
        return await self._runner.read(argv)

    async def change(self, argv: tuple[str, ...]) -> Completed:
        return await self._runner.change(argv)

    @property
    def _runner(self) -> ProcessRunner:
        return self._patient if self.are_answered else self._hasty


class RealCluster(Cluster):
    """Slurm's own commands; power over its daemons only where the cluster is this run's own."""

    def __init__(self, conf: str, folder: Path, own: SlurmCluster | None) -> None:
        self._own = own
        self._folder = folder
        self._environment = os.environ | ({"SLURM_CONF": conf} if conf else {})
        self._deadline = time.monotonic() + 90
        self._runner = Commands(conf)
        self._scheduler = SlurmScheduler(self._runner, prefix(INSTALLATION))
        self.scheduler: Reading = self._scheduler

    async def pass_time(self) -> bool:
        await asyncio.sleep(0.05)
        return time.monotonic() < self._deadline

    async def submit(self, token: str, *, exit_code: int | None = None) -> Sent:
        """Send a job that lasts, or one that ends at once with an exit code."""
        script = self._script(SLEEP if exit_code is None else f"#!/bin/sh\nexit {exit_code}\n")
        return await self._scheduler.submit(submission(token, str(self._folder), str(script)))

    def stranger(self, name: str) -> int:
        """Queue a job that is not ours, and return its id."""
        script = self._script(SLEEP)
        return int(self._command("sbatch", "--parsable", "--hold", "-o/dev/null", f"--job-name={name}", str(script)))

    def hold(self, job_id: int) -> None:
        self._command("scontrol", "hold", str(job_id))

    def release(self, job_id: int) -> None:
        self._command("scontrol", "release", str(job_id))

    def requeue(self, job_id: int) -> None:
        """As an administrator does it: `--no-requeue` holds until it is taken back."""
        self._command("scontrol", "update", f"jobid={job_id}", "requeue=1")
        self._command("scontrol", "requeue", str(job_id))

    def suspend(self, job_id: int) -> None:
        self._power()
        self._command("scontrol", "suspend", str(job_id))

    def resume(self, job_id: int) -> None:
        self._command("scontrol", "resume", str(job_id))

    def node_fails(self, node: str) -> None:
        self._power()
        self._command("scontrol", "update", f"nodename={node}", "state=down", "reason=a test")

    async def node_returns(self, node: str) -> None:
        """Slurm refuses while the node is not down yet, or has come back by itself."""

        async def back() -> bool | None:
            resume = ("scontrol", "update", f"nodename={node}", "state=resume")
            subprocess.run(resume, env=self._environment, check=False, capture_output=True, timeout=60)
            return not self._command("sinfo", "-h", "-n", node, "-o", "%t").startswith("down") or None

        await self.until(back, f"the return of {node}")

    def drain(self, node: str) -> None:
        self._power()
        self._command("scontrol", "update", f"nodename={node}", "state=drain", "reason=a test")

    def undrain(self, node: str) -> None:
        self._command("scontrol", "update", f"nodename={node}", "state=resume")

    def limit_jobs(self, most: int | None) -> None:
        """Let the QOS that jobs have by default run so many of a user at a time; `None`: any number."""
        self._power()
        limit = f"MaxJobsPerUser={-1 if most is None else most}"
        self._command("sacctmgr", "-i", "-Q", "modify", "qos", "normal", "set", limit)

    def reserve(self, seconds: float) -> None:
        """Reserve all nodes for a maintenance that begins in so many seconds."""
        self._power()
        what = ("ReservationName=maintenance", "Duration=60", "Users=root", "Nodes=ALL", "Flags=MAINT,IGNORE_JOBS")
        self._command("scontrol", "create", "reservation", f"StartTime=now+{seconds:.0f}", *what)

    def call_off(self) -> None:
        """Call that maintenance off."""
        self._command("scontrol", "delete", "ReservationName=maintenance")

    def hang(self) -> None:
        """Stop slurmctld by SIGSTOP."""
        self._power().control("pause", "slurmctld")
        self._runner.are_answered = False

    def go_on(self) -> None:
        self._power().control("continue", "slurmctld")
        self._runner.are_answered = True

    def stop(self) -> None:
        self._power().control("stop", "slurmctld")
        self._runner.are_answered = False

    def start(self) -> None:
        self._power().control("start", "slurmctld")
        self._runner.are_answered = True

    def stop_accounting(self) -> None:
        self._power().control("stop", "slurmdbd")

    def start_accounting(self) -> None:
        self._power().control("start", "slurmdbd")

    def close(self) -> None:
        """Leave nothing behind."""
        if self._own is not None:
            self._own.repair()
        listed = self._command("squeue", "--me", "-h", "-o", "%i %j").splitlines()
        mine = [line.split()[0] for line in listed if f"t{os.getpid()}x" in line]
        if mine:
            self._command("scancel", *mine)

    def _power(self) -> SlurmCluster:
        if self._own is None:
            pytest.skip("nobody but its administrators may do this to that cluster")
        return self._own

    def _script(self, text: str) -> Path:
        script = self._folder / "job.sh"
        script.write_text(text)
        return script

    def _command(self, *argv: str) -> str:
        done = subprocess.run(argv, env=self._environment, check=True, capture_output=True, text=True, timeout=60)
        return done.stdout


def submission(token: str, folder: str = "/run", script: str = "/run/job.sh") -> Submission:
    """Return a small job."""
    resources = Resources(memory_mb=100, time_limit=TIME_LIMIT_MINUTES)
    return Submission(token=token, resources=resources, folder=folder, script=script, comment="a test", warning=60)


def finish(work: Coroutine[Any, Any, Value]) -> Value:
    """Run a call of the simulated scheduler through all its boundaries."""
    try:
        while True:
            work.send(None)
    except StopIteration as stop:
        value: Value = stop.value
        return value


class AtOnce:
    """The simulated scheduler, with nobody who stops at its boundaries."""

    def __init__(self, inner: SimScheduler) -> None:
        self._inner = inner

    async def list_jobs(self) -> Listing:
        return finish(self._inner.list_jobs())

    async def ended_jobs(self, job_ids: Collection[int]) -> Mapping[int, Job] | None:
        return finish(self._inner.ended_jobs(job_ids))

    async def addresses(self) -> Mapping[str, str]:
        return finish(self._inner.addresses())

    async def leaving(self, nodes: Collection[str]) -> Mapping[str, str]:
        return finish(self._inner.leaving(nodes))

    async def maintenances(self) -> tuple[Maintenance, ...]:
        return finish(self._inner.maintenances())

    async def cancel(self, token: str, job_id: int) -> None:
        finish(self._inner.cancel(token, job_id))

    async def shorten(self, token: str, minutes: int) -> None:
        finish(self._inner.shorten(token, minutes))

    def next_sequence(self) -> int:
        return self._inner.next_sequence()


class SimulatedCluster(Cluster):
    """The simulation's Slurm, in a world in which nothing goes wrong by itself."""

    def __init__(self) -> None:
        world = World(Plan(seed=1))
        world.calm, world.slurm.has_accounting, world.slurm.queue_waits = True, True, (0.0,)
        world.judge_cancel = lambda job: None  # type: ignore[method-assign]
        self._world, self._slurm = world, world.slurm
        self._inner = SimScheduler(world, world.controllers[0])
        self.scheduler: Reading = AtOnce(self._inner)
        self._exit_codes: dict[str, int] = {}
        self._deadline = world.now + 10 * MIN_JOB_AGE

    async def pass_time(self) -> bool:
        self._world.now += 0.5
        for job in self._slurm.jobs.values():
            if job.state == "RUNNING" and job.name in self._exit_codes:
                self._slurm.end(job, "FAILED", self._world.now, code=self._exit_codes[job.name])
        self._slurm.advance(self._world.now)
        return self._world.now < self._deadline

    async def submit(self, token: str, *, exit_code: int | None = None) -> Sent:
        """Send a job that lasts, or one that ends at once with an exit code."""
        if exit_code is not None:
            self._exit_codes[token] = exit_code
        return finish(self._inner.submit(submission(token)))

    def stranger(self, name: str) -> int:
        """Queue a job that is not ours, and return its id."""
        job_id = self._slurm.create(name, self._world.now)
        self._slurm.jobs[job_id].held = True
        return job_id

    def hold(self, job_id: int) -> None:
        self._job(job_id).held = True

    def release(self, job_id: int) -> None:
        self._job(job_id).held = False

    def requeue(self, job_id: int) -> None:
        self._slurm.requeue(self._job(job_id), self._world.now)

    def suspend(self, job_id: int) -> None:
        self._job(job_id).state = "SUSPENDED"

    def resume(self, job_id: int) -> None:
        self._slurm.resume(self._job(job_id), self._world.now)

    def node_fails(self, node: str) -> None:
        for job in [j for j in self._slurm.jobs.values() if j.alive and j.node == node]:
            self._slurm.end(job, "NODE_FAIL", self._world.now, code=0)

    async def node_returns(self, node: str) -> None:
        """Nodes of the simulation are never away."""

    def drain(self, node: str) -> None:
        self._slurm.leaving.add(node)

    def undrain(self, node: str) -> None:
        self._slurm.leaving.discard(node)

    def limit_jobs(self, most: int | None) -> None:
        self._slurm.most_running = most or 0

    def reserve(self, seconds: float) -> None:
        """Reserve all nodes for a maintenance that begins in so many seconds."""
        begins_at, self._slurm.time_limit = self._world.now + seconds, TIME_LIMIT_MINUTES * 60.0
        self._slurm.maintenances.append(SimMaintenance(begins_at, begins_at + 3600.0))

    def call_off(self) -> None:
        """Call that maintenance off."""
        self._slurm.maintenances.clear()

    def hang(self) -> None:
        self._slurm.silent_until = float("inf")
        self._world.next_fate = "late"

    def go_on(self) -> None:
        self._slurm.silent_until = 0.0

    def stop(self) -> None:
        self._slurm.silent_until = float("inf")
        self._world.next_fate = "lost"

    def start(self) -> None:
        self._slurm.silent_until = 0.0

    def stop_accounting(self) -> None:
        self._slurm.accounting_down_until = float("inf")

    def start_accounting(self) -> None:
        self._slurm.accounting_down_until = 0.0

    def close(self) -> None:
        """Leave nothing behind."""
        self._world.close()

    def _job(self, job_id: int) -> SimJob:
        return self._slurm.jobs[job_id]


AnyCluster = RealCluster | SimulatedCluster
