"""The log of plans: every non-empty plan with its inputs, one JSON line each, in two files of limited size."""

from __future__ import annotations

import contextlib
import logging
import os
from pathlib import Path

from api.contract.job.private import make_folder
from api.contract.log import current
from api.contract.traces import PLANS
from controller.core.codec import Decision, encode, of_one_service, without_private
from controller.report import Pass

log = logging.getLogger(__name__)

MEGABYTE = 1_000_000


class PlanLog:
    """Appends to one file; when that is full it takes the place of the older one, and a new one is begun.

    A disk that is full or a folder that is gone costs lines, never a pass.
    """

    def __init__(self, folder: Path, megabytes: int) -> None:
        self._path = folder / PLANS
        self._most = megabytes * MEGABYTE
        self._failing = False
        with contextlib.suppress(OSError):  # what prevents it is said at the first plan
            make_folder(folder)

    def report(self, done: Pass) -> None:
        """Write a plan down, unless it is empty."""
        if done.plan.is_empty:
            return
        try:
            self._append(encode(decision(done)) + b"\n")
        except (OSError, ValueError) as error:
            if not self._failing:
                log.warning("plans can't be written down", extra={"file": str(self._path), "error": error})
            self._failing = True
        else:
            self._failing = False

    def _append(self, line: bytes) -> None:
        """Write one line by one call, so that no two of several writers mix."""
        file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            size = os.write(file, line) and os.fstat(file).st_size
        finally:
            os.close(file)
        if size >= self._most:
            self._path.replace(self._path.with_name(f"{PLANS}.1"))


def decision(done: Pass) -> Decision:
    """Return what is written of a pass: all that its plan was decided on, and nothing else."""
    return Decision(
        epoch=done.term.epoch,
        pass_id=str(current().get("pass_id", "")),
        now=done.now,
        desired=without_private(done.record.desired),
        seen=of_one_service(done.seen),
        limits=done.limits,
        plan=done.plan,
        failure=done.failure,
    )
