"""Slurm's commands as the product finds them: their calls are written down, and each may lie for a while."""

from __future__ import annotations

import contextlib
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from tests.cluster.system import System

LIAR = Path(__file__).with_name("liar.py")

IN_READING = (
    "old", "half of the lines", "cut in mid-line", "empty", "no word", "done, but exit 1", "late, then done",
    "done, then late",
)  # fmt: skip
LIES = {
    "squeue": IN_READING,
    "sacct": IN_READING,
    "sbatch": ("old", "no word", "done, but exit 1", "late, then done", "done, then late"),
    "scancel": ("nothing done", "done, but exit 1", "late, then done", "done, then late"),
}
"""By command, what `liar.py` does in place of telling the truth."""

PATIENCE = 60.0
"""Seconds for a command that was late to be done; it is late by 15 s, and Slurm may take its time."""


class Commands:
    """A program in front of each of the commands; a lie is told by all calls that begin while it lasts."""

    def __init__(self, system: System) -> None:
        self.folder = system.folder / "bin"
        self.folder.mkdir()
        self._cluster = system.cluster
        shutil.copy(LIAR, self.folder)
        for command in LIES:
            real = subprocess.run(["which", command], check=True, capture_output=True, text=True).stdout.strip()
            (self.folder / f"{command}.answers").mkdir()
            path = self.folder / command
            path.write_text(f'#!/bin/sh\nexec {sys.executable} -IS {self.folder}/liar.py {command} {real} "$@"\n')
            path.chmod(0o755)
        system.configure("[slurm]", f'[slurm]\nbin_dir = "{self.folder}"')

    def calls(self, command: str) -> list[tuple[float, int, str]]:
        """Return when, by which process and under which token sbatch or scancel was called."""
        with contextlib.suppress(FileNotFoundError):
            lines = [line.split(" ") for line in (self.folder / "commands").read_text().splitlines()]
            return [(float(at), int(pid), token) for at, pid, called, token in lines if called == command]
        return []

    def kill_after(self, command: str) -> Path:
        """Have slurmctld killed right after its answer to the next such command; the file is gone once that is done."""
        mark = self.folder / f"kill-after-{command}"
        mark.write_text(self._cluster.control("pid", "slurmctld"))
        return mark

    def lie(self, command: str, lie: str) -> None:
        """Have a command lie from now on; the oldest answer that is remembered is what an old one will be."""
        for answer in sorted((self.folder / f"{command}.answers").iterdir())[:1]:
            with contextlib.suppress(FileNotFoundError):
                shutil.copy(answer, self.folder / f"{command}.yesterday")
        (self.folder / f"{command}.lie").write_text(lie)

    def tell_the_truth(self) -> None:
        """Have none lie any more."""
        for command in LIES:
            (self.folder / f"{command}.lie").unlink(missing_ok=True)

    def wait_for_late_ones(self) -> None:
        """Wait until all that was to be done late is done. Raises `TimeoutError`."""
        until = time.monotonic() + PATIENCE
        while list(self.folder.glob("late.*")):
            if time.monotonic() > until:
                raise TimeoutError("a command that is late was not done")
            time.sleep(0.2)


class Lies:
    """Each lie of each command as a fault, which lasts some seconds."""

    def __init__(self, commands: Commands, drawn: random.Random) -> None:
        self._commands = commands
        self._drawn = drawn
        self.kinds: dict[str, Callable[[], None]] = {
            f"{command}: {lie}": partial(self._lie, command, lie) for command, lies in LIES.items() for lie in lies
        }

    def _lie(self, command: str, lie: str) -> None:
        self._commands.lie(command, lie)
        time.sleep(self._drawn.uniform(3, 12))
        self._commands.tell_the_truth()
