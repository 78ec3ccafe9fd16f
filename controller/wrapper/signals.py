"""The signals that reach the wrapper, noted for the one loop that acts on them."""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Callable
from types import FrameType


class StoppedError(Exception):
    """We were told to stop before there was an engine."""


class Signals:
    """What was heard so far. `wait` returns at once when a signal comes or a child ends."""

    def __init__(self) -> None:
        self.stop: signal.Signals | None = None
        """The first of TERM, INT and HUP."""
        self.warned = False
        """USR1 came: the time limit is near."""
        self.before_waiting: Callable[[], None] = lambda: None
        """Done whenever the job has nothing else to do for a while, which is every few seconds."""
        self.readers: dict[int, Callable[[], None]] = {}
        """By descriptor: what is done while we wait, whenever there is something to read."""
        self._wake, write = os.pipe()
        os.set_blocking(self._wake, False)
        os.set_blocking(write, False)
        signal.set_wakeup_fd(write, warn_on_full_buffer=False)
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

    def check(self) -> None:
        """Raise `StoppedError` if we were told to stop."""
        if self.stop is not None:
            raise StoppedError(self.stop.name)

    def _on_stop(self, number: int, _frame: FrameType | None) -> None:
        self.stop = self.stop or signal.Signals(number)

    def _on_warning(self, _number: int, _frame: FrameType | None) -> None:
        self.warned = True
