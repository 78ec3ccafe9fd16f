"""A network of a process's own, for all that it starts: nothing is in it but a loopback that nobody else reaches.

Run by itself, it tries: it ends with 0, or says why there is none. Works on Python 3.9 with its standard library.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import socket
import struct
import sys
from pathlib import Path

CLONE_NEWUSER, CLONE_NEWNET = 0x1000_0000, 0x4000_0000
"""unshare(2)"""

SIOCSIFFLAGS, IFF_UP = 0x8914, 1
"""netdevice(7)"""


def leave() -> str | None:
    """Leave the node's network for one of our own; return why the kernel does not let us, and then nothing has changed.

    There is no way back. Sockets that are open stay in the network in which they were made. Who has threads may not
    (user_namespaces(7)). Raises `OSError` if the kernel changes its mind.
    """
    refused = _tried()
    if refused == 0:
        _leave()
        return None
    # unshare(2) says so of user.max_user_namespaces and user.max_net_namespaces
    return "its limit of namespaces is reached" if refused == errno.ENOSPC else os.strerror(refused)


def _tried() -> int:
    """Return the error number with which a child of ours fails; 0: it does not. AppArmor refuses half-way."""
    child = os.fork()
    if child == 0:
        refused = errno.ENOSYS
        try:
            _leave()
            refused = 0
        except OSError as error:
            refused = error.errno or refused
        finally:
            os._exit(refused)
    return abs(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))


def _leave() -> None:
    """Make a user namespace, without which a plain user gets no network, with ourselves in it as who we are."""
    user, group = os.geteuid(), os.getegid()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWUSER | CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "unshare")
    for name, text in (("uid_map", f"{user} {user} 1"), ("setgroups", "deny"), ("gid_map", f"{group} {group} 1")):
        Path("/proc/self", name).write_text(text, encoding="ascii")
    with socket.socket() as any_socket:
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sh22x", b"lo", IFF_UP))


if __name__ == "__main__":
    sys.exit(leave())
