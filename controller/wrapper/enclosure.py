"""A PID namespace for all that one container takes: with its first process ends all that is in it (pid_namespaces(7)).

What is in the container has one anyway. Around that, Apptainer leaves a process which mounts a plain user's image
(squashfuse) in a group of its own, where no signal of ours finds it once those who look for it are killed. So Apptainer
itself is the first process.
"""

from __future__ import annotations

import ctypes
import os
import subprocess

from api.contract.job.namespaces import CLONE_NEWNS, CLONE_NEWPID, CLONE_NEWUSER, refusal, unshare

MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REC, MS_SLAVE = 0x2, 0x4, 0x8, 0x4000, 0x8_0000
"""mount(2)"""

SECONDS = 10.0
"""So long Apptainer may take to say how it was built."""


def kinds_for(apptainer: str) -> int:
    """Return the namespaces that enclose a container of this Apptainer (unshare(2)); 0: the kernel gives none.

    A user namespace is made where nothing else will do, and not for an Apptainer that is installed setuid: there it
    could not be, and might have to mount images otherwise.
    """
    if _is_given(CLONE_NEWPID + CLONE_NEWNS):
        return CLONE_NEWPID + CLONE_NEWNS
    own = CLONE_NEWUSER + CLONE_NEWPID + CLONE_NEWNS
    return own if _is_given(own) and not _is_setuid(apptainer) else 0


def fork_into(kinds: int) -> int:
    """Fork as os.fork(2) does, with the child as the first process in namespaces of these kinds. Raises `OSError`.

    The parent is half in, and of no more use.
    """
    unshare(kinds)
    return os.fork()


def show_processes() -> None:
    """Mount a /proc that shows the processes of our namespace, for nobody outside. Raises `OSError`."""
    _mount("none", "/", None, MS_REC + MS_SLAVE)
    _mount("proc", "/proc", "proc", MS_NOSUID + MS_NODEV + MS_NOEXEC)


def _is_given(kinds: int) -> bool:
    return refusal(lambda: _try(kinds)) is None


def _try(kinds: int) -> None:
    first = fork_into(kinds)
    if first == 0:
        show_processes()
        return
    refused = os.waitstatus_to_exitcode(os.waitpid(first, 0)[1])
    if refused != 0:
        raise OSError(refused, "mount")


def _is_setuid(apptainer: str) -> bool:
    """Whether it says so; one that says nothing is not."""
    try:
        said = subprocess.run([apptainer, "buildcfg"], capture_output=True, check=False, timeout=SECONDS).stdout
    except (OSError, subprocess.TimeoutExpired):
        return False
    return b"_SUID_INSTALL=1" in said


def _mount(source: str, target: str, kind: str | None, flags: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mount.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p]
    if libc.mount(source.encode(), target.encode(), None if kind is None else kind.encode(), flags, None) != 0:
        raise OSError(ctypes.get_errno(), "mount")
