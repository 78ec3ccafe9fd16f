"""Namespaces of a process's own, as far as the kernel lets a plain user make them.

A network for all that it starts: nothing is in it but a loopback that nobody else reaches. Run by itself, this tries
one: it ends with 0, or says why there is none. Works on Python 3.9 with its standard library.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import socket
import struct
import sys
from collections.abc import Callable
from pathlib import Path

CLONE_NEWNS, CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x2_0000, 0x1000_0000, 0x2000_0000, 0x4000_0000
"""unshare(2)"""

SIOCSIFFLAGS, IFF_UP = 0x8914, 1
"""netdevice(7)"""


def leave_network() -> str | None:
    """Leave the node's network for one of our own; return why the kernel does not let us, and then nothing has changed.

    There is no way back. Sockets that are open stay in the network in which they were made. Raises `OSError` if the
    kernel changes its mind.
    """
    why = refusal(_leave_network)
    if why is None:
        _leave_network()
    return why


def refusal(work: Callable[[], None]) -> str | None:
    """Have a child of ours do it; return why the kernel does not let it, `None`: it does. AppArmor refuses half-way."""
    child = os.fork()
    if child == 0:
        refused = errno.ENOSYS
        try:
            work()
            refused = 0
        except OSError as error:
            refused = error.errno or refused
        finally:
            os._exit(refused)
    refused = abs(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    if refused == 0:
        return None
    # unshare(2) says so of user.max_user_namespaces and the like
    return "its limit of namespaces is reached" if refused == errno.ENOSPC else os.strerror(refused)


def unshare(kinds: int) -> None:
    """Leave these namespaces for ones of our own; in one of users (`CLONE_NEWUSER`) we are who we are, and nobody else.

    A plain user makes the others within one of users. Who has threads may not (user_namespaces(7)). Raises `OSError`.
    """
    user, group = os.geteuid(), os.getegid()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(kinds) != 0:
        raise OSError(ctypes.get_errno(), "unshare")
    if kinds & CLONE_NEWUSER:
        for name, text in (("uid_map", f"{user} {user} 1"), ("setgroups", "deny"), ("gid_map", f"{group} {group} 1")):
            Path("/proc/self", name).write_text(text, encoding="ascii")


def _leave_network() -> None:
    unshare(CLONE_NEWUSER | CLONE_NEWNET)
    with socket.socket() as any_socket:
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sh22x", b"lo", IFF_UP))


if __name__ == "__main__":
    sys.exit(leave_network())
