"""What befalls the jobs themselves: suspended, requeued, and their engine and its wrapper killed, alone or together."""

from __future__ import annotations

import random
import signal
import subprocess
import time
from collections.abc import Callable
from typing import TypeVar

from tests.cluster.processes import LivingEngine, engines, kill, kill_together, processes, send, wrapper, wrappers
from tests.cluster.system import System

Choice = TypeVar("Choice")

PATIENCE = 15.0
"""Seconds to wait for somebody to do it to, and for Slurm to take an order."""


class NobodyError(Exception):
    """There was nobody to do it to."""


class JobFaults:
    """All faults of jobs, by the name under which they are counted."""

    def __init__(self, system: System, drawn: random.Random, tell: Callable[[str], None]) -> None:
        self._system = system
        self._tell = tell
        self._drawn = drawn
        self._run_dir = system.folder / "run"
        self.kinds: dict[str, Callable[[], None]] = {
            "job suspended": self._suspended,
            "job requeued": self._requeued,
            "engine killed": self._engine_killed,
            "wrapper killed": self._wrapper_killed,
            "wrapper, guards and door killed": self._all_killed,
        }

    def mend(self) -> None:
        """Resume what is suspended."""
        for job in self._system.jobs("SUSPENDED"):
            self._system.slurm("scontrol", "resume", str(job["id"]))

    def _suspended(self) -> None:
        job = self._one_of(self._running)
        self._system.slurm("scontrol", "suspend", job)
        time.sleep(self._drawn.uniform(1, 15))
        self._insist("scontrol", "resume", job)

    def _requeued(self) -> None:
        job = self._one_of(self._running)
        self._system.slurm("scontrol", "update", f"JobId={job}", "Requeue=1")
        self._system.slurm("scontrol", "requeue", job)

    def _engine_killed(self) -> None:
        kill(self._one_of(self._alive))

    def _wrapper_killed(self) -> None:
        engine = self._one_of(self._alive)
        send(wrapper(self._run_dir, engine.token, processes()), signal.SIGKILL)

    def _all_killed(self) -> None:
        """Kill whatever might end an engine: the kernel does it."""
        engine = self._one_of(self._alive)
        kill_together(wrappers(self._run_dir, engine.token, processes()))

    def _running(self) -> list[str]:
        return [str(job["id"]) for job in self._system.jobs("RUNNING")]

    def _alive(self) -> list[LivingEngine]:
        return engines(self._run_dir)

    def _one_of(self, choices: Callable[[], list[Choice]]) -> Choice:
        """Draw one, as soon as there are any."""
        until = time.monotonic() + PATIENCE
        while not (found := choices()):
            if time.monotonic() > until:
                raise NobodyError("there is nobody to do it to")
            time.sleep(0.2)
        chosen = self._drawn.choice(found)
        self._tell(f"chosen: {chosen}")
        return chosen

    def _insist(self, *command: str) -> None:
        """Run one of Slurm's commands until it succeeds, for as long as our patience lasts."""
        until = time.monotonic() + PATIENCE
        while True:
            try:
                self._system.slurm(*command)
            except subprocess.SubprocessError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.5)
            else:
                return
