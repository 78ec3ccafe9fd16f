"""The end of an engine whose job was told to end.

Slurm signals a job alike whoever is behind it: a time limit, a preemption, an administrator, the controller. The
controller, which takes the attempt out of use beforehand, leaves the file `CLOSED` before its scancel; then the engine
is told to end at once. Everybody else surprises those who are being answered: the door drains, the controller is told,
and the engine finishes what it has, for as long as Slurm lets the job live.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from api.contract.job.folder import CLOSED
from api.contract.job.parameters import Parameters
from api.contract.job.words import ExitReason, Step
from controller.wrapper.door.opening import OpenDoor
from controller.wrapper.files import lies_there
from controller.wrapper.logs.reading import Logs
from controller.wrapper.process import Child
from controller.wrapper.report import Ending, Report
from controller.wrapper.signals import Signals

RESEND = 2.0
"""Seconds between two TERMs."""

LOOK = 1.0
"""Seconds between two looks whether the controller wants it to end, too."""

DEAF = 5.0
"""Seconds after its start during which a TERM may be lost; later one that writes to its log has heard it."""

if TYPE_CHECKING:
    Lost = Callable[[], Ending | None]
    """Tells how a job ends that has lost its replica or a volume to another, or its door; `None` while it has not."""


class Stop:
    """What ends an engine after a signal."""

    def __init__(self, folder: Path, parameters: Parameters, report: Report, signals: Signals) -> None:
        self._folder = folder
        self._report = report
        self._signals = signals
        self._grace = parameters.stop_grace
        # Who writes to a volume may need all the time that there is to close its files.
        self._patience = 0.0 if parameters.volumes else parameters.drain_most

    def end(self, child: Child, door: OpenDoor | None, logs: Logs, lost: Lost) -> Ending:
        """Let the engine finish what it has, unless it is the controller who ends it; then end it."""
        is_ours = self._is_ours()
        if not is_ours:
            self._report.told_to_end_at = time.time()
        self._report.step(Step.DRAINING, f"{self._name} received")
        if door is not None and not is_ours:
            self._let_finish(child, door, lost)
        return self._terminate(child, logs, lost)

    def _let_finish(self, child: Child, door: OpenDoor, lost: Lost) -> None:
        """Have the door drain, and wait for it as long as there is patience, unless the controller has none."""
        deadline = time.monotonic() + self._patience
        door.drain()
        while not door.is_empty and child.exit_code() is None and lost() is None and not self._is_ours():
            left = deadline - time.monotonic()
            if left <= 0:
                return
            self._signals.wait(min(LOOK, left))

    def _is_ours(self) -> bool:
        """Whether it is the controller who tells it to end. Where that can't be seen, it is taken for somebody else."""
        try:
            return lies_there(self._folder, CLOSED)
        except OSError:
            return False

    def _terminate(self, child: Child, logs: Logs, lost: Lost) -> Ending:
        """Pass TERM on until it is heeded, for as long as the grace lasts and nobody takes our place; then kill."""
        began = time.monotonic()
        deadline = began + self._grace
        deaf, written = child.age < DEAF, logs.size()
        child.send(signal.SIGTERM)
        again = began + RESEND
        while child.exit_code() is None:
            now = time.monotonic()
            if now >= deadline:
                return self._stopped(137, f"the engine did not end within {self._grace:g} s, and was killed")
            taken = lost()
            if taken is not None:
                return self._stopped(137, f"{taken.message}; the engine was killed")
            if now >= again:
                if deaf or logs.size() == written:
                    child.send(signal.SIGTERM)
                again = now + RESEND
            self._signals.wait(min(again, deadline) - now)
        code = child.exit_code() or 0
        return self._stopped(code, f"the engine ended with {code} after {time.monotonic() - began:.1f} s")

    @property
    def _name(self) -> str:
        return self._signals.stop.name if self._signals.stop is not None else ""

    def _stopped(self, code: int, how: str) -> Ending:
        return Ending(code, stop_reason(self._signals), f"stopped by {self._name}; {how}")


def stop_reason(signals: Signals) -> ExitReason:
    """Name why we were told to stop: after a warning it is the time limit."""
    return ExitReason.TIME_LIMIT if signals.warned else ExitReason.TERMINATED
