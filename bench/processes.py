"""Processes that are measured beside one another, and what each costs."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.figures import cpu_seconds

ROOT = Path(__file__).resolve().parents[1]
PATIENCE = 120.0


@dataclass(frozen=True)
class Way:
    """A way to the engine, and the processes that it costs."""

    name: str
    port: int | None
    pids: tuple[int, ...] = ()

    def cpu(self) -> float:
        """Seconds of processor so far."""
        return sum(map(cpu_seconds, self.pids))

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Have it do nothing meanwhile, so that it takes no core and no cache from what is measured."""
        try:
            self._signal(signal.SIGSTOP)
            yield
        finally:
            self._signal(signal.SIGCONT)

    def _signal(self, number: int) -> None:
        for pid in self.pids:
            os.kill(pid, number)

    def memory(self) -> int:
        """Proportional set size in kB: what the workers of nginx share is counted once."""
        rollups = (Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines() for pid in self.pids)
        return sum(int(line.split()[1]) for lines in rollups for line in lines if line.startswith("Pss:"))


@contextmanager
def process(command: Sequence[str], *, log: Path | None = None, **more: Any) -> Iterator[subprocess.Popen[str]]:
    """Run a program, which is killed at the end; what it says is ours to read, unless it goes to a log."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with ExitStack() as stack:
        file: Any = subprocess.PIPE if log is None else stack.enter_context(log.open("w"))
        errors = None if log is None else subprocess.STDOUT
        running = stack.enter_context(
            subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=file, stderr=errors, text=True, env=environment, **more
            )
        )
        try:
            yield running
        finally:
            running.kill()


def wait_until_listens(port: int, running: subprocess.Popen[str], log: Path) -> None:
    """Wait until a program accepts connections; raises `RuntimeError` with the end of its log."""
    deadline = time.monotonic() + PATIENCE
    while not _listens(port):
        if time.monotonic() > deadline or running.poll() is not None:
            raise RuntimeError(log.read_text()[-2000:])
        time.sleep(0.05)


def children(pid: int) -> list[int]:
    """Return the children of a process (proc(5), children)."""
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _listens(port: int) -> bool:
    """Whether somebody accepts connections there."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True
