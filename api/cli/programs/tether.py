"""`python tether.py PARENT COMMAND…` becomes COMMAND, which the kernel kills when its parent dies, however that dies.

prctl(2) keeps the wish across exec. It must be made by the child itself; doing it here, in a program of its own,
spares the parent a `preexec_fn`, which is not safe beside threads. Run as a file, it imports nothing of this project.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    """Tie this process to its parent, then become the command."""
    parent, *command = sys.argv[1:]
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        sys.exit(f"prctl: {os.strerror(ctypes.get_errno())}")
    if os.getppid() != int(parent):
        sys.exit("the parent died before its child began")
    os.execvp(command[0], command)  # noqa: S606


if __name__ == "__main__":
    main()
