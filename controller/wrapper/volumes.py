"""Writable volumes: a folder each, used by one job at a time.

VOLUME/data is what the engine sees. VOLUME/lock.1, lock.2, … lie out of its reach: each tells who took the volume, or
that it was given back, and the newest one counts. The next one is made by link(2), which is atomic on NFS too: of two
jobs that take the volume one is told that the number is given, and looks again. So the lock changes hands without a
moment in which nobody has it, and whoever lost it finds a number above its own.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from controller.wrapper.files import is_linked, remove, say, write_new
from controller.wrapper.parameters import Volume
from controller.wrapper.process import descendants
from controller.wrapper.report import FailedError, Report
from controller.wrapper.signals import Signals

PATIENCE = 10.0
"""Seconds that a volume may take to be given back, as by a service that was deleted a moment ago."""

INTERVAL = 0.5
"""Seconds between two looks at a volume that is in use."""

KEPT = 20
"""So many old numbers stay, for jobs that read the newest one long ago, and for people."""

DATA = "data"


@dataclass(frozen=True)
class Holder:
    """A job as it writes itself into a lock; no token: it was given back."""

    token: str
    job_id: int
    host: str
    at: float
    """Unix seconds of the node's clock; for people only."""


class Held:
    """The volumes that this job has taken: folder and number of the lock."""

    def __init__(self, me: Holder) -> None:
        self._me = me
        self._locks: list[tuple[Path, int]] = []

    def take(self, volume: Volume, report: Report, signals: Signals) -> None:
        """Take one, once it is free; raises `FailedError` (`VolumeInUse`, `VolumeFailed`) or `StoppedError`."""
        folder = _place(volume)
        deadline = time.monotonic() + PATIENCE
        try:
            (folder / DATA).mkdir(mode=0o700, parents=True, exist_ok=True)
            while True:
                number, holder = _newest(folder)
                if _may_follow(self._me, holder) and _link(folder, number + 1, self._me):
                    self._locks.append((folder, number + 1))
                    _clear(folder, number + 1 - KEPT)
                    return
                if time.monotonic() >= deadline:
                    raise FailedError("VolumeInUse", _in_use(folder, holder))
                report.step("volume", f"waiting for {folder}")
                signals.check()
                signals.wait(INTERVAL)
        except OSError as error:
            raise FailedError("VolumeFailed", f"cannot use the volume {folder}: {error.strerror or error}") from error

    def lost(self) -> str | None:
        """Say who has taken one of them over; `None`: nobody, or it can't be read."""
        for folder, number in self._locks:
            with contextlib.suppress(OSError):
                newest, holder = _newest(folder)
                if newest > number:
                    return f"the volume {folder} was taken over by {_name(holder)}"
        return None

    def give_back(self) -> None:
        """Give all back, unless something of ours may still write."""
        if self._locks and descendants(os.getpid()):
            say(f"cannot give back {', '.join(str(folder) for folder, _ in self._locks)}: processes are left")
            return
        for folder, number in reversed(self._locks):
            try:
                _link(folder, number + 1, Holder("", self._me.job_id, self._me.host, time.time()))
            except OSError as error:
                say(f"cannot give back {folder}: {error}")
        self._locks = []


@contextlib.contextmanager
def held(volumes: Sequence[Volume], token: str, job_id: int, report: Report, signals: Signals) -> Iterator[Held]:
    """Take the volumes, all in the same order, so that no two jobs wait for each other; give them back at the end."""
    taken = Held(Holder(token, job_id, socket.gethostname(), time.time()))
    try:
        for volume in sorted(volumes, key=lambda each: each.source):
            taken.take(volume, report, signals)
        yield taken
    finally:
        taken.give_back()


def data(volume: Volume) -> Path:
    """Return the folder of a volume that the engine sees."""
    return _place(volume) / DATA


def _place(volume: Volume) -> Path:
    """Return its folder, links followed; raises `FailedError` where they lead out of where it may lie."""
    folder = Path(os.path.realpath(volume.source))
    root = None if volume.root is None else Path(os.path.realpath(volume.root))
    if root is not None and (root == folder or root not in folder.parents):
        raise FailedError("VolumeFailed", f"the volume {volume.source} leads to {folder}, out of {volume.root}")
    return folder


def _newest(folder: Path) -> tuple[int, Holder | None]:
    """Return the newest number and who it names; (0, nobody) for a volume that was never taken; raises `OSError`.

    `None`: somebody has it, but who can't be read.
    """
    found = (re.fullmatch(r"lock\.([0-9]{1,15})", path.name) for path in folder.iterdir())
    numbers = [int(match.group(1)) for match in found if match]
    if not numbers:
        return 0, Holder("", 0, "", 0.0)
    newest = max(numbers)
    try:
        told = json.loads((folder / f"lock.{newest}").read_text(encoding="utf-8"))
        return newest, Holder(str(told["token"]), int(told["job_id"]), str(told["host"]), float(told["at"]))
    except (OSError, ValueError, TypeError, KeyError):
        return newest, None


def _may_follow(me: Holder, holder: Holder | None) -> bool:
    """Whether the volume is free, or the holder's job is known to be over: that of an earlier try at this replica.

    The controller opens an attempt only when nothing of the one before is left.
    """
    if holder is None:
        return False
    mine, _, now = me.token.rpartition("-")
    theirs, _, before = holder.token.rpartition("-")
    return not holder.token or (mine == theirs and now.isdecimal() and before.isdecimal() and int(before) <= int(now))


def _link(folder: Path, number: int, holder: Holder) -> bool:
    """Make the lock of this number; whether it is ours and the newest. Raises `OSError` if that can't be tried."""
    lock = folder / f"lock.{number}"
    draft = folder / f".lock.{holder.job_id}.{holder.host}.{os.getpid()}"
    try:
        write_new(draft, json.dumps(asdict(holder)))
        try:
            os.link(draft, lock)
        except OSError as error:
            if not is_linked(draft):
                if isinstance(error, FileExistsError):
                    return False
                raise
        # A number that was cleared away long ago can be made anew; then there is a newer one.
        return _newest(folder)[0] == number
    finally:
        remove(draft)


def _clear(folder: Path, last: int) -> None:
    for number in range(last, 0, -1):
        try:
            (folder / f"lock.{number}").unlink()
        except OSError:
            return


def _in_use(folder: Path, holder: Holder | None) -> str:
    return (
        f"the volume {folder} is in use by {_name(holder)}; one job at a time may write to it. "
        f"Stop that service first. If that job is over for sure, remove {folder}/lock.*"
    )


def _name(holder: Holder | None) -> str:
    if holder is None:
        return "somebody whose lock can't be read"
    return f"{holder.token} (job {holder.job_id} on {holder.host})"
