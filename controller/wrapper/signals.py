"""The signals that reach the wrapper, noted for the one loop that acts on them."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType


class StoppedError(Exception):
    """We were told to stop before there was an engine."""


class Signals:
    """What was heard so far. `wait` returns at once when a signal comes or a child ends."""

    def __init__(self) -> None:
        self.stop: signal.Signals | None = None
        """The first of TERM, INT and HUP, or a USR1 that no time limit explains."""
        self.warned = False
        """USR1 came: the time limit is near."""
        self._warns_from = 0.0
        self.before_waiting: Callable[[], None] = lambda: None
        """Done whenever the job has nothing else to do for a while, which is every few seconds."""
        self.readers: dict[int, Callable[[], None]] = {}
        """By descriptor: what is done while we wait, whenever there is something to read."""
        self._wake, self._waker = os.pipe()
        os.set_blocking(self._wake, False)
        os.set_blocking(self._waker, False)
        signal.set_wakeup_fd(self._waker, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._on_stop)
        signal.signal(signal.SIGUSR1, self._on_warning)
        signal.signal(signal.SIGCHLD, lambda *_: None)

    def wait(self, seconds: float) -> None:
        """Pause until something happens, or the time is up."""
        self.before_waiting()
        deadline = time.monotonic() + seconds
        while True:
            ready, _, _ = select.select([self._wake, *self.readers], [], [], max(0.0, deadline - time.monotonic()))
            if self._wake in ready:
                os.read(self._wake, 4096)
                return
            if not ready:
                return
            for file in ready:
                self.readers[file]()

    def wake(self) -> None:
        """Have `wait` return: what a reader has read is worth a look."""
        with contextlib.suppress(BlockingIOError):  # so many wake it already
            os.write(self._waker, b"\0")

    def expect_warning_after(self, seconds: float) -> None:
        """Take a USR1 that comes sooner after the job's start for an order to end: it tells of no time limit.

        slurmctld sends it to a job that is preempted with a grace (slurm.conf(5), preempt_send_user_signal).
        """
        self._warns_from = time.monotonic() + seconds - _age()

    def check(self) -> None:
        """Raise `StoppedError` if we were told to stop."""
        if self.stop is not None:
            raise StoppedError(self.stop.name)

    def _on_stop(self, number: int, _frame: FrameType | None) -> None:
        self.stop = self.stop or signal.Signals(number)

    def _on_warning(self, number: int, frame: FrameType | None) -> None:
        if time.monotonic() < self._warns_from:
            self._on_stop(number, frame)
        else:
            self.warned = True


def _age() -> float:
    """Return for how many seconds this process has run (proc(5)): the prologue was part of it."""
    since_its_name = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    started_at = int(since_its_name[19]) / os.sysconf("SC_CLK_TCK")
    return time.clock_gettime(time.CLOCK_BOOTTIME) - started_at
