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

from api.contract.job.words import ExitReason
from controller.wrapper.files import say
from controller.wrapper.report import FailedError

YOUNG = 60.0
"""Seconds during which a folder may not have got its lock yet."""


@contextlib.contextmanager
def scratch(job_id: int) -> Iterator[Path]:
    """Make the folder, in TMPDIR or /tmp; raises `FailedError` where there is no room for it."""
    prefix = f"ai-factory-{os.getuid()}-"
    base = Path(tempfile.gettempdir())
    _remove_orphans(base, prefix)
    try:
        folder = Path(tempfile.mkdtemp(prefix=f"{prefix}{job_id}-"))
    except OSError as error:
        raise FailedError(ExitReason.WRAPPER_ERROR, f"cannot make a folder in {base}: {error.strerror}") from error
    lock = _lock(folder)
    try:
        yield folder
    finally:
        _remove(folder)
        if lock is not None:
            os.close(lock)


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
