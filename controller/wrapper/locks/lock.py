"""A lock that outlives jobs, on a file system that all nodes see.

FOLDER/lock.1, lock.2, …: each tells who took it, or that it was given back, and the newest one counts. The next one is
made by link(2), which is atomic on NFS too: of two jobs that take it one is told that the number is given, and looks
again. So it changes hands without a moment in which nobody has it, and whoever lost it finds a number above its own.
Since an NFS client may see a folder late, whoever takes it adds a line to the lock before as well: a file that is
opened afresh is asked for at the server.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from dataclasses import asdict, dataclass
from pathlib import Path

from api.contract.job.private import open_regular
from controller.wrapper.files import is_linked, remove, write_new

LARGEST = 100_000
"""Bytes of a lock that are read."""

KEPT = 20
"""So many old numbers stay, for jobs that read the newest one long ago, and for people."""


@dataclass(frozen=True)
class Holder:
    """A job as it writes itself into a lock; no token: it was given back."""

    token: str
    job_id: int
    host: str
    at: float
    """Unix seconds of the node's clock; for people only."""


def newest(folder: Path) -> tuple[int, Holder | None]:
    """Return the newest number and who it names; (0, nobody) for a lock that was never taken; raises `OSError`.

    `None`: somebody has it, but who can't be read.
    """
    found = (re.fullmatch(r"lock\.([0-9]{1,15})", path.name) for path in folder.iterdir())
    numbers = [int(match.group(1)) for match in found if match]
    if not numbers:
        return 0, Holder("", 0, "", 0.0)
    number = max(numbers)
    try:
        told = json.loads(_lines(folder / f"lock.{number}")[0])
        return number, Holder(str(told["token"]), int(told["job_id"]), str(told["host"]), float(told["at"]))
    except (OSError, ValueError, TypeError, KeyError, IndexError):
        return number, None


def take(folder: Path, number: int, holder: Holder) -> bool:
    """Make the lock of this number; whether it is ours and the newest. Raises `OSError` if that can't be tried."""
    lock = folder / f"lock.{number}"
    draft = folder / f".lock.{holder.job_id}.{holder.host}.{os.getpid()}"
    try:
        write_new(draft, json.dumps(asdict(holder)) + "\n")
        try:
            os.link(draft, lock)
        except OSError as error:
            if not is_linked(draft):
                if isinstance(error, FileExistsError):
                    return False
                raise
        _tell(folder / f"lock.{number - 1}", f"lock.{number}")
        # A number that was cleared away long ago can be made anew; then there is a newer one.
        return newest(folder)[0] == number
    finally:
        remove(draft)


def taken_over(folder: Path, number: int) -> str | None:
    """Say who has taken the lock of this number over; `None`: nobody, or it can't be read."""
    is_told = False
    with contextlib.suppress(OSError):
        is_told = len(_lines(folder / f"lock.{number}")) > 1
    with contextlib.suppress(OSError):
        latest, holder = newest(folder)  # after the line, which is added when there is a newer one
        if latest > number:
            return name(holder)
    return "another job" if is_told else None


def clear(folder: Path, number: int) -> None:
    """Remove what lies far enough below this number."""
    for old in range(number - KEPT, 0, -1):
        try:
            (folder / f"lock.{old}").unlink()
        except OSError:
            return


def name(holder: Holder | None) -> str:
    """Name a holder for people."""
    if holder is None:
        return "somebody whose lock can't be read"
    return f"{holder.token} (job {holder.job_id} on {holder.host})"


def _tell(lock: Path, next_: str) -> None:
    """Add a line to a lock that is no longer the newest; never to what a link of that name leads to."""
    with contextlib.suppress(OSError):
        descriptor = os.open(lock, os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(descriptor, "ab") as file:
            file.write(f"followed by {next_}\n".encode())


def _lines(lock: Path) -> list[bytes]:
    """Return the lines of a lock; raises `OSError`, at once too where somebody has put a pipe in its place."""
    with open_regular(lock) as file:
        return file.read(LARGEST).splitlines()
