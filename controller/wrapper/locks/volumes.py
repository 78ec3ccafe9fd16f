"""Writable volumes: a folder each, used by one job at a time.

VOLUME/data is what the engine sees. The lock lies beside it, out of the engine's reach.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from api.contract.job.parameters import VolumeMount
from api.contract.job.private import make_folder
from api.contract.job.token import parse_token
from api.contract.job.words import ExitReason, Step
from controller.wrapper.files import say
from controller.wrapper.locks import lock
from controller.wrapper.locks.lock import Holder
from controller.wrapper.process import descendants
from controller.wrapper.report import FailedError, Report
from controller.wrapper.signals import Signals

PATIENCE = 10.0
"""Seconds that a volume may take to be given back, as by a service that was deleted a moment ago."""

INTERVAL = 0.5
"""Seconds between two looks at a volume that is in use."""

DATA = "data"


class HeldVolumes:
    """The volumes that this job has taken: folder and number of the lock."""

    def __init__(self, me: Holder) -> None:
        self._me = me
        self._locks: list[tuple[Path, int]] = []

    def take(self, volume: VolumeMount, report: Report, signals: Signals) -> None:
        """Take one, once it is free; raises `FailedError` (`VolumeInUse`, `VolumeFailed`) or `StoppedError`."""
        report.step(Step.VOLUME, f"taking {volume.source}")
        folder = _place(volume)
        deadline = time.monotonic() + PATIENCE
        try:
            make_folder(folder / DATA)
            while True:
                number, holder = lock.newest(folder)
                if _may_follow(self._me, holder) and lock.take(folder, number + 1, self._me):
                    self._locks.append((folder, number + 1))
                    lock.clear(folder, number + 1)
                    return
                if time.monotonic() >= deadline:
                    raise FailedError(ExitReason.VOLUME_IN_USE, _in_use(folder, holder))
                report.step(Step.VOLUME, f"waiting for {folder}")
                signals.check()
                signals.wait(INTERVAL)
        except OSError as error:
            raise FailedError(
                ExitReason.VOLUME_FAILED, f"cannot use the volume {folder}: {error.strerror or error}"
            ) from error

    def lost(self) -> str | None:
        """Say who has taken one of them over; `None`: nobody, or it can't be read."""
        for folder, number in self._locks:
            who = lock.taken_over(folder, number)
            if who is not None:
                return f"the volume {folder} was taken over by {who}"
        return None

    def give_back(self) -> None:
        """Give all back, unless something of ours may still write."""
        if self._locks and descendants(os.getpid()):
            say(f"cannot give back {', '.join(str(folder) for folder, _ in self._locks)}: processes are left")
            return
        for folder, number in reversed(self._locks):
            try:
                lock.take(folder, number + 1, Holder("", self._me.job_id, self._me.host, time.time()))
            except OSError as error:
                say(f"cannot give back {folder}: {error}")
        self._locks = []


@contextlib.contextmanager
def held(
    volumes: Sequence[VolumeMount], token: str, job_id: int, report: Report, signals: Signals
) -> Iterator[HeldVolumes]:
    """Take the volumes, all in the same order, so that no two jobs wait for each other; give them back at the end."""
    taken = HeldVolumes(Holder(token, job_id, socket.gethostname(), time.time()))
    try:
        for volume in sorted(volumes, key=lambda each: each.source):
            taken.take(volume, report, signals)
        yield taken
    finally:
        taken.give_back()


def data(volume: VolumeMount) -> Path:
    """Return the folder of a volume that the engine sees."""
    return _place(volume) / DATA


def _place(volume: VolumeMount) -> Path:
    """Return its folder, links followed; raises `FailedError` where they lead out of where it may lie."""
    folder = Path(os.path.realpath(volume.source))
    root = None if volume.root is None else Path(os.path.realpath(volume.root))
    if root is not None and (root == folder or root not in folder.parents):
        raise FailedError(
            ExitReason.VOLUME_FAILED, f"the volume {volume.source} leads to {folder}, out of {volume.root}"
        )
    return folder


def _may_follow(me: Holder, holder: Holder | None) -> bool:
    """Whether the volume is free, or the holder's job is known to be over: that of an earlier try at this replica.

    The controller opens an attempt only when nothing of the one before is left.
    """
    if holder is None:
        return False
    if not holder.token:
        return True
    mine, theirs = parse_token(me.token), parse_token(holder.token)
    if mine is None or theirs is None:
        return False
    return mine.replica_name == theirs.replica_name and theirs.incarnation <= mine.incarnation


def _in_use(folder: Path, holder: Holder | None) -> str:
    return (
        f"the volume {folder} is in use by {lock.name(holder)}; one job at a time may write to it. "
        f"Stop that service first. If that job is over for sure, remove {folder}/lock.*"
    )
