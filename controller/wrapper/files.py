"""Small files that appear whole or not at all, and what the job says to its own log."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path

from api.contract.job.private import open_regular


def say(message: str) -> None:
    """Write a line to the job's stderr. A full disk must not turn a message into a failure."""
    with contextlib.suppress(OSError, ValueError):
        print(f"wrapper: {message}", file=sys.stderr, flush=True)


def write_new(path: Path, text: str) -> None:
    """Write a private file down to the disk; raises `OSError`, and then leaves nothing under that name.

    What has that name is removed, not written to: volumes may lie where others lay links.
    """
    remove(path)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(descriptor)
    except OSError:
        remove(path)
        raise


def replace(path: Path, text: str) -> None:
    """Put a file in place by an atomic rename; raises `OSError`, and then the old one still stands."""
    temporary = path.with_name(f".{path.name}.tmp")
    write_new(temporary, text)
    try:
        temporary.replace(path)
    except OSError:
        remove(temporary)
        raise


def is_linked(path: Path) -> bool:
    """Whether a file of our own got a second name; opened afresh, since NFS then asks the server."""
    try:
        with open_regular(path) as file:
            return os.fstat(file.fileno()).st_nlink == 2
    except OSError as error:
        say(f"cannot look at {path}: {error}")
        return False


def lies_there(folder: Path, name: str) -> bool:
    """Whether a folder has a file of that name, as its server says now; raises `OSError`.

    A client of NFS may remember for a minute that a file is not there, but asks anew when the folder is opened (nfs(5),
    close-to-open and acdirmax).
    """
    return name in os.listdir(folder)  # noqa: PTH208


def remove(path: Path) -> None:
    """Remove a file if it can be; what is not there is fine."""
    with contextlib.suppress(OSError):
        path.unlink()
