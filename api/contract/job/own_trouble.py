"""Whose trouble an error tells of: the host's that met it, or that of what it wanted to reach, start or read."""

from __future__ import annotations

import errno
import socket

OWN = frozenset(
    {
        errno.EMFILE,
        errno.ENFILE,
        errno.ENOMEM,
        errno.ENOBUFS,
        errno.EAGAIN,
        errno.EADDRNOTAVAIL,
        errno.ENETDOWN,
        errno.ENETUNREACH,
    }
)
"""No file descriptors (of the process, of the host), no memory, no processes (fork(2)), no local ports (connect(2)),
no network: nobody else was asked."""


def is_own_trouble(error: BaseException) -> bool:
    """Whether it says nothing of an engine, of Slurm or of a file: this host could not even ask.

    What an error came of counts, and of a group each. A name that can't be resolved was never asked either.
    """
    if isinstance(error, socket.gaierror) or (isinstance(error, OSError) and error.errno in OWN):
        return True
    parts = getattr(error, "exceptions", ())  # ExceptionGroup, from Python 3.11 on
    if parts:
        return all(is_own_trouble(part) for part in parts)
    before = error.__cause__ or error.__context__  # httpcore raises `from None`
    return before is not None and is_own_trouble(before)
