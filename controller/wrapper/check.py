"""The health check of kind `command`: run beside the engine again and again, its verdict told in `state.json`."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from controller.wrapper.process import Child
from controller.wrapper.report import HealthVerdict
from controller.wrapper.signals import Signals

STARTING = 1.0
"""Seconds between two checks of an engine that is not well, unless its interval is shorter."""

READ = 64 * 1024
"""Bytes that are kept of what a check writes, the last ones: as many as a pipe holds."""
SAID = 400
"""Characters of what a failed check has written that are told on, the last ones."""


class HealthCheck:
    """One command, never run twice at a time. It looks at nothing but its exit code, and is killed when it hangs.

    `start` runs it, with this descriptor for its output. What it writes is read as it comes, and is in no file.
    """

    def __init__(
        self,
        start: Callable[[int], Child],
        signals: Signals,
        *,
        interval: float,
        timeout: float,
        redact: Callable[[str], str],
    ) -> None:
        self._begin = start
        self._signals = signals
        self._output = -1
        self._written = b""
        self._interval = interval
        self._timeout = timeout
        self._redact = redact
        self._running: Child | None = None
        self._due = time.monotonic()
        self._verdict: HealthVerdict | None = None

    def tend(self) -> HealthVerdict | None:
        """Start it when it is due, judge it when it ended or hangs; return what is known by now."""
        if self._running is None and time.monotonic() >= self._due:
            self._start()
        elif self._running is not None:
            code = self._running.exit_code()
            if code is not None:
                self._judge("" if code == 0 else f"ended with {code}: {self._said()}")
            elif self._running.age >= self._timeout:
                self._judge(f"did not end within {self._timeout:g} s")
        return self._verdict

    def pause(self) -> float:
        """Return after how many seconds it wants to be tended again; a check that ends wakes the wrapper by itself."""
        if self._running is not None:
            return max(0.0, self._timeout - self._running.age)
        return max(0.0, self._due - time.monotonic())

    def close(self) -> None:
        """End a check that is still running."""
        if self._running is not None:
            self._running.cut()
            self._running = None
            self._signals.readers.pop(self._output, None)
            os.close(self._output)

    def _start(self) -> None:
        try:
            read, write = os.pipe()
            try:
                self._running = self._begin(write)
            except OSError:
                os.close(read)
                raise
            finally:
                os.close(write)
        except OSError as error:
            self._judge(f"cannot be started: {error.strerror or error}")
            return
        os.set_blocking(read, False)
        self._output, self._written = read, b""
        self._signals.readers[read] = self._read

    def _read(self) -> None:
        """Take what it has written, so that it need not wait."""
        try:
            text = os.read(self._output, READ)
        except BlockingIOError:
            return
        self._written = (self._written + text)[-READ:]
        if not text:
            self._signals.readers.pop(self._output, None)

    def _judge(self, trouble: str) -> None:
        self.close()
        before = self._verdict.failures if self._verdict is not None else 0
        message = f"The health check {trouble}" if trouble else ""
        self._verdict = HealthVerdict(not trouble, before + 1 if trouble else 0, message)
        self._due = time.monotonic() + (min(self._interval, STARTING) if trouble else self._interval)

    def _said(self) -> str:
        self._read()
        return self._redact(self._written.decode("utf-8", errors="replace")).strip()[-SAID:]
