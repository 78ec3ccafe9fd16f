"""What breaks around the controller: Slurm's daemons, a node, the database, RUN_DIR. Each fault ends by itself."""

from __future__ import annotations

import contextlib
import random
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from tests.cluster.lying_commands import Commands
from tests.cluster.processes import below, processes, send
from tests.cluster.slurm_past import SlurmPast
from tests.cluster.system import System

NODES = ("node1", "node2", "node3", "node4")

NODE_LOST = (14.0, 24.0)
"""Seconds: slurmctld gives a node up after SlurmdTimeout, 10 s in the tests' cluster, and asks again before."""

MOST_FORGOTTEN = 25.0
"""Seconds of slurmctld's state that are lost at most."""

RUN_DIR_BYTES = "48m"


class Faults:
    """All faults, by the name under which they are counted; each lasts `haste` times shorter than it says."""

    def __init__(
        self,
        system: System,
        commands: Commands,
        past: SlurmPast,
        drawn: random.Random,
        kill: Callable[[], None],
        haste: float,
    ) -> None:
        self._system = system
        self._haste = haste
        self._commands = commands
        self._past = past
        self._drawn = drawn
        self._kill = kill
        self.kinds: dict[str, Callable[[], None]] = {
            "slurmctld stopped": lambda: self._daemon("slurmctld", "stop", 15),
            "slurmctld paused": lambda: self._paused("slurmctld", 15),
            "slurmctld killed": lambda: self._daemon("slurmctld", "kill", 3),
            "slurmctld killed after sbatch": lambda: self._killed_after("sbatch"),
            "slurmctld killed after scancel": lambda: self._killed_after("scancel"),
            "slurmdbd stopped": lambda: self._daemon("slurmdbd", "stop", 20),
            "munged stopped": lambda: self._daemon("munged", "stop", 5),
            "slurmd killed": lambda: self._daemon(f"slurmd-{drawn.choice(NODES)}", "kill", 4),
            "slurmd killed for longer than its node is waited for": self._node_lost,
            "slurmctld killed and its state rolled back": self._rolled_back,
            "node died": self._node,
            "database locked": self._locked,
            "database read-only": self._read_only,
            "RUN_DIR read-only": self._run_dir_read_only,
        }
        if (system.folder / "run").is_mount():
            self.kinds["RUN_DIR full"] = self._run_dir_full

    def _hold(self, most: float, least: float = 1.0) -> None:
        time.sleep(self._drawn.uniform(least, most) / self._haste)

    def _daemon(self, daemon: str, verb: str, most: float) -> None:
        self._system.cluster.control(verb, daemon)
        self._hold(most)
        self._system.cluster.control("start", daemon)

    def _paused(self, daemon: str, most: float) -> None:
        self._system.cluster.control("pause", daemon)
        self._hold(most)
        self._system.cluster.control("continue", daemon)

    def _killed_after(self, command: str) -> None:
        mark = self._commands.kill_after(command)
        until = time.monotonic() + 15
        while mark.exists() and time.monotonic() < until:
            time.sleep(0.05)
        mark.unlink(missing_ok=True)
        self._hold(3)
        self._system.cluster.control("start", "slurmctld")

    def _rolled_back(self) -> None:
        """Lose the last seconds of what slurmctld knows, as by a disk that forgets or a backup that is put back."""
        self._system.cluster.control("kill", "slurmctld")
        self._past.put_back(self._drawn.uniform(1, MOST_FORGOTTEN))
        self._hold(3)
        self._system.cluster.control("start", "slurmctld")

    def _node_lost(self) -> None:
        """Kill a slurmd until slurmctld has given the node up, with all its jobs, which go on."""
        daemon = f"slurmd-{self._drawn.choice(NODES)}"
        self._system.cluster.control("kill", daemon)
        time.sleep(self._drawn.uniform(*NODE_LOST))
        self._system.cluster.control("start", daemon)

    def _node(self) -> None:
        """Cut a node's power, and bring it back."""
        node = self._drawn.choice(NODES)
        cut_power(self._system, node)
        self._hold(20, 5)
        self._system.cluster.control("start", f"slurmd-{node}")

    def _locked(self) -> None:
        path = self._system.folder / "state" / "ai-factory.db"
        with closing(sqlite3.connect(path, timeout=30, isolation_level=None)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            self._hold(30, 30)
            connection.execute("ROLLBACK")

    def _read_only(self) -> None:
        """Take away the right to write, and kill the controller: an open file stays writable."""
        self._change_modes(0o400)
        try:
            self._kill()
            self._hold(10, 3)
        finally:
            self._change_modes(0o600)

    def _change_modes(self, mode: int) -> None:
        for file in (self._system.folder / "state").glob("ai-factory.db*"):
            with contextlib.suppress(FileNotFoundError):
                file.chmod(mode)

    def _run_dir_full(self) -> None:
        ballast = self._system.folder / "run" / "ballast"
        try:
            with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
                while True:
                    file.write(b"\0" * 65536)
            self._hold(12, 3)
        finally:
            ballast.unlink(missing_ok=True)

    def _run_dir_read_only(self) -> None:
        run_dir = self._system.folder / "run"
        with read_only(run_dir) if run_dir.is_mount() else _unwritable(run_dir):
            self._hold(12, 3)


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Mount a folder over itself, for reading alone; a file system that is written to can't be made so."""
    _mount("--bind", folder, folder)
    try:
        _mount("-o", "remount,bind,ro", folder)
        yield
        _mount("-o", "remount,bind,rw", folder)  # for those who stay in it
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


@contextmanager
def _unwritable(folder: Path) -> Iterator[None]:
    folder.chmod(0o500)
    try:
        yield
    finally:
        folder.chmod(0o700)


def _mount(*arguments: str | Path) -> None:
    subprocess.run(["mount", *arguments], check=True, capture_output=True)


@contextmanager
def small_run_dir(system: System) -> Iterator[None]:
    """Give RUN_DIR a small file system of its own, where that may be done."""
    run_dir = system.folder / "run"
    run_dir.mkdir(mode=0o700)
    command = ["mount", "-t", "tmpfs", "-o", f"size={RUN_DIR_BYTES},mode=700", "tmpfs", str(run_dir)]
    mounted = subprocess.run(command, check=False, capture_output=True).returncode == 0
    try:
        yield
    finally:
        if mounted:
            subprocess.run(["umount", "--lazy", run_dir], check=False)


def cut_power(system: System, node: str) -> None:
    """Kill all that runs on a node, its slurmd too."""
    jobs = system.slurm("squeue", "-h", "-w", node, "-o", "%A").split()
    system.cluster.control("kill", f"slurmd-{node}")
    _kill_all_of(jobs, system.cluster.folder / "log")


def _kill_all_of(jobs: list[str], log: Path) -> None:
    """Kill the processes of these jobs at one blow: all are stopped before the first is killed, so none is born."""
    stopped: set[int] = set()
    while found := _processes_of(jobs, log) - stopped:
        send(found, signal.SIGSTOP)
        stopped |= found
    send(stopped, signal.SIGKILL)


def _processes_of(jobs: list[str], log: Path) -> set[int]:
    """Return the processes of these jobs: slurmstepd writes its job into its title, and stays in the log's folder."""
    alive = processes()
    steps = {
        pid
        for pid, process in alive.items()
        if any(process.arguments[0].startswith(f"slurmstepd: [{job}.") for job in jobs) and _works_in(pid, log)
    }
    return below(steps, alive)


def _works_in(pid: int, folder: Path) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cwd").samefile(folder)
    return False
