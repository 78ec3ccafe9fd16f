"""A node-local folder for one job: the engine's /tmp and home, removed with the job.

A wrapper that was killed leaves its folder behind; the next one on that node removes it. Each holds a lock on its own
folder, so that one that can be locked belongs to nobody.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from api.contract.job.sockets import LONGEST_PATH
from api.contract.job.words import ExitReason
from controller.wrapper.files import say
from controller.wrapper.report import FailedError

YOUNG = 60.0
"""Seconds during which a folder may not have got its lock yet."""


SOCKET = "socket"
"""The file of a socket, alone in its folder."""

SHORT = Path("/tmp")  # noqa: S108 - a folder of our own in it


@contextlib.contextmanager
def scratch(job: int | str, base: Path | None = None) -> Iterator[Path]:
    """Make the folder, in TMPDIR or /tmp; raises `FailedError` where there is no room for it."""
    prefix = f"ai-factory-{os.getuid()}-"
    base = base or Path(tempfile.gettempdir())
    _remove_orphans(base, prefix)
    try:
        folder = Path(tempfile.mkdtemp(prefix=f"{prefix}{job}-", dir=base))
    except OSError as error:
        raise FailedError(ExitReason.WRAPPER_ERROR, f"cannot make a folder in {base}: {error.strerror}") from error
    lock = _lock(folder)
    try:
        yield folder
    finally:
        _remove(folder)
        if lock is not None:
            os.close(lock)


@contextlib.contextmanager
def socket_folder(room: Path) -> Iterator[Path]:
    """Make a folder of mode 0700 for a socket: in the job's room, or in /tmp where the path is too long for one."""
    folder = room / "engine"
    if len(os.fsencode(folder / SOCKET)) > LONGEST_PATH:
        with scratch("socket", SHORT) as short:
            yield short
    else:
        folder.mkdir(mode=0o700)
        yield folder


def _remove_orphans(base: Path, prefix: str) -> None:
    for folder in base.glob(f"{prefix}*"):
        with contextlib.suppress(OSError):
            status = folder.lstat()
            if status.st_uid != os.getuid() or folder.is_symlink() or time.time() - status.st_ctime < YOUNG:
                continue
            lock = _lock(folder)
            if lock is not None:
                _remove(folder)
                os.close(lock)


def _lock(folder: Path) -> int | None:
    """Return the descriptor that holds the lock; `None`: it is taken, or can't be had."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def _remove(folder: Path) -> None:
    """Remove it with all below, folders that forbid it too."""
    for root, folders, _ in os.walk(folder):
        for name in folders:
            path = Path(root, name)
            if not path.is_symlink():
                with contextlib.suppress(OSError):
                    path.chmod(0o700)
    shutil.rmtree(folder, ignore_errors=True)
    if folder.exists():
        say(f"cannot remove all of {folder}")
