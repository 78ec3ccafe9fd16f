"""What is this user's alone: folders made so, and whether others may have had a hand in what is there."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import IO

BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH
"""The bits of a mode by which others may write. An access list that lets them shows in the group's (acl(5))."""


def make_folder(path: Path) -> None:
    """Make a folder of mode 0700, and so what is missing above it; one that is there stays as it is.

    Raises `OSError`.
    """
    try:
        path.mkdir(mode=0o700)
    except FileNotFoundError:
        if path.parent.is_dir():
            raise  # as in /proc
        make_folder(path.parent)
        make_folder(path)
    except FileExistsError:
        if not path.is_dir():
            raise


def is_trusted(user: int) -> bool:
    """Whether what a user owns is as good as our own: root can do what we can."""
    return user in {os.getuid(), 0}


def owner(path: Path) -> int:
    """Return whose it is: of a link that another user laid, that user. Raises `OSError`."""
    link = path.lstat().st_uid
    return path.stat().st_uid if is_trusted(link) else link


def require_private(path: Path) -> None:
    """Raise `PermissionError` where others own it or may write to it, and `OSError` if that can't be seen."""
    user = owner(path)
    if not is_trusted(user):
        raise PermissionError(errno.EPERM, f"it belongs to user {user}", str(path))
    if path.stat().st_mode & BY_OTHERS:
        raise PermissionError(errno.EPERM, "others may write to it", str(path))


def open_regular(path: Path) -> IO[bytes]:
    """Open a file that somebody has named, for reading; raises `OSError`.

    A pipe or a device is refused at once, where opening it would wait for whoever writes to it.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "it is no regular file", str(path))
    return os.fdopen(descriptor, "rb")
