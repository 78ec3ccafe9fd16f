"""The replica's slot: of all jobs that ever run for one replica, the engine of one may live.

The claim keeps a second job from an attempt; this keeps a second attempt from a replica, where the controller was led
to believe that the first one was over: a node that Slurm gave up and that lives on, a listing that lied for long.
Whoever comes last has it. The one before finds out at its next look, and ends its engine; the new one waits for that.

Each lane has a slot. Who may not live beside the other lane takes that one's slot as well, its own first: of two that
do so at least one finds its own taken. It gives the other back before its engine starts, since what is opened beside it
later must not end it.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from api.contract.job.folder import slot_folder
from api.contract.job.token import parse_token
from api.contract.job.words import ExitReason, Lane, Step
from controller.wrapper.files import say
from controller.wrapper.locks import lock
from controller.wrapper.locks.lock import Holder
from controller.wrapper.process import descendants
from controller.wrapper.report import FailedError, Report
from controller.wrapper.signals import Signals

HANDOVER = 12.0
"""Seconds that an engine which may still live is given: its wrapper looks every 5 s, and takes 5 s at most to kill."""

INTERVAL = 0.5
"""Seconds between two looks while we wait."""


class HeldSlot:
    """The slot, as this job has taken it."""

    def __init__(self, folder: Path, number: int, me: Holder) -> None:
        self._folder = folder
        self._number = number
        self._me = me

    def lost(self) -> str | None:
        """Say who has taken it over; `None`: nobody, or it can't be read."""
        who = lock.taken_over(self._folder, self._number)
        return None if who is None else f"the replica was taken over by {who}"

    def give_back(self) -> None:
        """Say that no engine of ours lives any more, unless one may."""
        if descendants(os.getpid()):
            say("cannot give the slot back: processes are left")
            return
        try:
            lock.take(self._folder, self._number + 1, Holder("", self._me.job_id, self._me.host, time.time()))
        except OSError as error:
            say(f"cannot give the slot back: {error}")


@contextlib.contextmanager
def held(
    folder: Path, lane: Lane, token: str, job_id: int, report: Report, signals: Signals, *, alone: bool
) -> Iterator[HeldSlot]:
    """Take the slot of a lane of a token's replica, and give it back at the end.

    `folder` is the attempt's; `alone`: nothing of the replica's other lane may live beside it. Raises `FailedError`
    (`SlotFailed`, `SlotLost`) or `StoppedError`.
    """
    parts = parse_token(token)
    if parts is None:
        raise FailedError(ExitReason.SLOT_FAILED, f"{token!r} names no replica")
    report.step(Step.SLOT)
    me = Holder(token, job_id, socket.gethostname(), time.time())
    lanes = [lane, *(other for other in Lane if other is not lane and alone)]
    taken = [_take(slot_folder(folder, parts, each), me) for each in lanes]
    slot, *others = (each for each, _ in taken)
    # Who is ended while it waits gives nothing back: the engine before may live, and the next one has to wait as well.
    if may_live := [lock.name(before) for _, before in taken if before is None or before.token]:
        _wait_for(" and ".join(may_live), slot, report, signals)
    for other in others:
        other.give_back()
    try:
        yield slot
    finally:
        slot.give_back()


def _take(folder: Path, me: Holder) -> tuple[HeldSlot, Holder | None]:
    """Take it; return who had it before. Without a slot no engine."""
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        while True:
            number, before = lock.newest(folder)
            if lock.take(folder, number + 1, me):
                lock.clear(folder, number + 1)
                return HeldSlot(folder, number + 1, me), before
    except OSError as error:
        raise FailedError(
            ExitReason.SLOT_FAILED, f"cannot take the slot {folder}: {error.strerror or error}"
        ) from error


def _wait_for(before: str, slot: HeldSlot, report: Report, signals: Signals) -> None:
    deadline = time.monotonic() + HANDOVER
    report.step(Step.SLOT, f"{before} did not give the replica back; its engine may still be ending")
    while time.monotonic() < deadline:
        signals.check()
        signals.wait(INTERVAL)
    who = slot.lost()
    if who is not None:
        raise FailedError(ExitReason.SLOT_LOST, who)
