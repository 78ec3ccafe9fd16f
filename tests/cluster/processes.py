"""The processes of an installation's jobs, found in /proc by what they were started with: no word of the product's."""

from __future__ import annotations

import contextlib
import os
import re
import signal
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

STOPPED = "T"
ZOMBIE = "Z"


@dataclass(frozen=True)
class Process:
    """One process, as /proc shows it (proc(5))."""

    pid: int
    born: int
    """Clock ticks from boot to its start: with the pid, no other process is like it."""
    parent: int
    state: str
    arguments: tuple[str, ...]


@dataclass(frozen=True)
class LivingEngine:
    """An engine: a program among the files of an attempt's job folder."""

    pid: int
    born: int
    token: str
    state: str

    @property
    def replica(self) -> str:
        """The token less its incarnation."""
        return self.token.rpartition("-")[0]

    @property
    def works(self) -> bool:
        """Whether it is not suspended."""
        return self.state != STOPPED


def processes() -> dict[int, Process]:
    """Return all that live; those that have ended and only wait to be reaped do not."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            state, parent, *rest = (folder / "stat").read_text(errors="replace").rpartition(")")[2].split()
            if state != ZOMBIE:
                words = (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")
                pid = int(folder.name)
                found[pid] = Process(pid, int(rest[17]), int(parent), state, tuple(words))
    return found


def engines(run_dir: Path, among: dict[int, Process] | None = None) -> list[LivingEngine]:
    """Return the engines that live, oldest first."""
    program = re.compile(re.escape(str(run_dir)) + r"/.*/([^/]+)/files/[^/]+\.py")
    found = []
    for process in (processes() if among is None else among).values():
        matches = filter(None, map(program.fullmatch, process.arguments[:2]))
        found += [LivingEngine(process.pid, process.born, match[1], process.state) for match in matches]
    return sorted(found, key=lambda engine: (engine.born, engine.pid))


def wrappers(run_dir: Path, token: str, among: dict[int, Process]) -> set[int]:
    """Return the wrapper of an attempt and all that it started but the engine: whatever might end that engine."""
    folder = re.compile(re.escape(str(run_dir)) + f"/.*/{token}")
    own = {pid for pid, process in among.items() if any(map(folder.fullmatch, process.arguments))}
    spared = {engine.pid for engine in engines(run_dir, among) if engine.token == token}
    return below(own, among) - below(spared, among)


def wrapper(run_dir: Path, token: str, among: dict[int, Process]) -> set[int]:
    """Return the wrapper alone: the one of them whose parent is none of them."""
    own = wrappers(run_dir, token, among)
    return {pid for pid in own if among[pid].parent not in own}


def job(run_dir: Path, token: str, among: dict[int, Process] | None = None) -> set[int]:
    """Return all processes of an attempt's job: its wrapper and whatever that has below it."""
    among = processes() if among is None else among
    return below(wrapper(run_dir, token, among), among)


def below(pids: Collection[int], among: dict[int, Process]) -> set[int]:
    """Return these processes and all their descendants."""
    found = set(pids)
    while more := {p.pid for p in among.values() if p.parent in found} - found:
        found |= more
    return found


def kill(engine: LivingEngine) -> bool:
    """Kill this very engine; whether it was there."""
    process = processes().get(engine.pid)
    if process is None or process.born != engine.born:
        return False
    send({engine.pid}, signal.SIGKILL)
    return True


def kill_together(pids: set[int]) -> None:
    """Kill processes at one blow: all are stopped before the first is killed, so none sees another's death."""
    send(pids, signal.SIGSTOP)
    send(pids, signal.SIGKILL)


def send(pids: set[int], number: signal.Signals) -> None:
    """Send a signal to those that live."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def listening(pids: Collection[int]) -> list[tuple[str, str, int]]:
    """Return (command, address, port) of each TCP socket that these processes listen on, each in its own network."""
    commands: dict[str, str] = {}
    for pid in pids:
        with contextlib.suppress(OSError):  # ended meanwhile
            command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            for link in Path(f"/proc/{pid}/fd").iterdir():
                with contextlib.suppress(OSError):
                    commands[str(link.readlink())] = command
    found = set()
    for table in {Path(f"/proc/{pid}/net/{name}") for pid in pids for name in ("tcp", "tcp6")}:
        with contextlib.suppress(OSError):
            for fields in map(str.split, table.read_text().splitlines()[1:]):
                command = commands.get(f"socket:[{fields[9]}]", "")
                if fields[3] == "0A" and command:
                    address, _, port = fields[1].rpartition(":")
                    found.add((command, address, int(port, 16)))
    return sorted(found)


def memory(pid: int) -> int:
    """Return the resident memory of a process, in kB."""
    return _figure(pid, "VmRSS")


def most_memory(pid: int) -> int:
    """Return the most resident memory that a process has had since `forget_most_memory`, in kB."""
    return _figure(pid, "VmHWM")


def forget_most_memory(pid: int) -> None:
    """Begin anew to look for the most resident memory of a process (proc(5), clear_refs)."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def _figure(pid: int, name: str) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(f"{name}:")).split()[1])
