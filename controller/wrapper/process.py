"""A child in a session of its own, and the end of everything that it started."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from controller.wrapper.enclosure import fork_into, show_processes
from controller.wrapper.files import say

PR_SET_CHILD_SUBREAPER = 36

KILL_TIMEOUT = 5.0
"""Seconds after which a process that survives KILL (stuck in the kernel) is given up."""


def adopt_orphans() -> None:
    """Become the parent of every descendant that loses its own, so that it can be found and ended.

    Best effort: where that does not exist, Slurm's own clean-up has to do.
    """
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


class Child:
    """One program in its own session, given these descriptors. Raises `OSError` if it can't be started.

    In namespaces of its own (`enclosure.kinds_for`) its end is that of everything that it started.
    """

    def __init__(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        folder: Path,
        output: int | None = None,
        *,
        stdin: int = subprocess.DEVNULL,
        descriptors: Sequence[int] = (),
        namespaces: int = 0,
    ) -> None:
        self.started_at = time.monotonic()
        self._watchman, watched, self._leash = _guard()
        hears, tells = os.pipe()
        begin = partial(_begin, namespaces, (tells, self._leash), watched)
        try:
            self._popen = subprocess.Popen(
                command,
                env=environment,
                cwd=folder,
                stdin=stdin,
                stdout=output,
                stderr=output,
                start_new_session=True,
                pass_fds=(watched, *descriptors),
                preexec_fn=begin,  # noqa: PLW1509 - we have no threads
            )
            first = int(os.read(hears, 32))
        except BaseException as error:
            _kill(self._watchman)
            os.close(self._leash)
            if isinstance(error, subprocess.SubprocessError):
                raise OSError(errno.EAGAIN, "it can't be given its namespaces or its guard") from error
            raise
        finally:
            for descriptor in (watched, hears, tells):
                os.close(descriptor)
        if namespaces:
            os.waitpid(self._popen.pid, 0)
            self._popen.pid = first
        _started[first] = self._popen

    @property
    def age(self) -> float:
        """Seconds since its start."""
        return time.monotonic() - self.started_at

    def exit_code(self) -> int | None:
        """Return how it ended, 128+N for a signal N; `None` while it runs. Adopted orphans are reaped on the way."""
        _reap()
        code = self._popen.returncode
        return 128 - code if code is not None and code < 0 else code

    def send(self, number: signal.Signals) -> None:
        """Signal the child itself; gone is fine."""
        self._popen.send_signal(number)

    def cut(self) -> None:
        """Kill it and all below it, and nothing else of ours; they are reaped as they end."""
        doomed = {self._popen.pid, *descendants(self._popen.pid)} if self.exit_code() is None else set()
        for pid in (self._watchman, *doomed):
            _kill(pid)
        os.close(self._leash)

    def end(self) -> None:
        """Kill it, its group and every descendant of ours, and return when they are gone."""
        deadline = time.monotonic() + KILL_TIMEOUT
        _kill_group(self._popen.pid)
        while True:
            remaining = descendants(os.getpid())
            for pid in remaining:
                _kill(pid)
            _reap()
            if not remaining or time.monotonic() > deadline:
                break
            time.sleep(0.01)
        os.close(self._leash)
        if remaining:
            say(f"cannot end processes {sorted(remaining)}")


spared: set[int] = set()
"""Processes of ours that no child has started, and that outlive them all."""

_started: dict[int, subprocess.Popen[bytes]] = {}
"""Our own children that have not been reaped: whose ends their `Popen` is to hear of."""


def _guard() -> tuple[int, int, int]:
    """Fork a guard that kills a child and all below it should we die without ending them, e.g. by KILL.

    PR_SET_PDEATHSIG would be simpler, but Apptainer's change of credentials clears it. Returns the guard, and the two
    ends of the leash. Its closing, as by our death, sets the guard off; it is killed before its child is ended
    otherwise.
    """
    watched, leash = os.pipe()
    guard = os.fork()
    if guard != 0:
        return guard, watched, leash
    try:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
            signal.signal(number, signal.SIG_IGN)
        _let_go(watched)
        if told := os.read(watched, 32):
            os.read(watched, 1)
            child = int(told)
            doomed = {child, *descendants(child), *_session(child)}
            _kill_group(child)
            for pid in doomed:
                _kill(pid)
    finally:
        os._exit(0)


def _begin(namespaces: int, told: Sequence[int], watched: int) -> None:
    """Be the process that becomes a program: tell who that is, to the guard too, and be tied to the leash.

    So there is no moment without a guard; and should the guard be killed with us, the kernel kills: it signals the
    owner of a pipe's end once the other end is closed (fcntl(2), F_SETSIG). The program inherits that end, and never
    uses it. Whoever made namespaces for it ends here, and we adopt it.
    """
    if namespaces:
        if fork_into(namespaces) != 0:
            os._exit(0)
        os.setsid()
    me = os.readlink("/proc/self").encode()  # noqa: PTH115 - as we are called outside
    for descriptor in told:
        os.write(descriptor, me)
    if namespaces:
        show_processes()
    fcntl.fcntl(watched, fcntl.F_SETOWN, -os.getpid())
    fcntl.fcntl(watched, fcntl.F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(watched, fcntl.F_SETFL, fcntl.fcntl(watched, fcntl.F_GETFL) | os.O_ASYNC)


def _let_go(kept: int) -> None:
    """Close what was inherited, but for one descriptor and the standard ones: others wait for its closing."""
    for entry in os.listdir("/proc/self/fd"):  # noqa: PTH208
        if int(entry) > 2 and int(entry) != kept:
            with contextlib.suppress(OSError):
                os.close(int(entry))


def _kill_group(leader: int) -> None:
    with contextlib.suppress(OSError):
        os.killpg(leader, signal.SIGKILL)


def _kill(pid: int) -> None:
    with contextlib.suppress(OSError):
        os.kill(pid, signal.SIGKILL)


def _reap() -> None:
    """Collect whoever has ended; the status of a child is left to its `Popen`."""
    while True:
        try:
            ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return
        if ended is None:
            return
        child = _started.pop(ended.si_pid, None)
        if child is not None:
            child.poll()
        else:
            os.waitpid(ended.si_pid, os.WNOHANG)


def descendants(ancestor: int) -> set[int]:
    """Return the ids of all processes below one, zombies too, from /proc; without those that are spared."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):  # noqa: PTH208
        if entry.isdigit():
            above = parent(int(entry))
            if above is not None:
                children.setdefault(above, []).append(int(entry))
    found: set[int] = set()
    unseen = [ancestor]
    while unseen:
        below = children.get(unseen.pop(), [])
        unseen += [pid for pid in below if pid not in found]
        found.update(below)
    return found - spared


def parent(pid: int) -> int | None:
    """Return the parent of a process; `None`: it has gone."""
    return _figure(pid, 1)


def _session(leader: int) -> set[int]:
    """Return all processes of a session: whose parents have ended before us are no descendants any more."""
    pids = (int(entry) for entry in os.listdir("/proc") if entry.isdigit())  # noqa: PTH208
    return {pid for pid in pids if _figure(pid, 3) == leader}


def _figure(pid: int, index: int) -> int | None:
    """Return a number of a process's `stat`, counted from its state (proc(5)); `None`: it has gone."""
    try:
        stat = Path("/proc", str(pid), "stat").read_text(encoding="utf-8", errors="replace")
        return int(stat.rpartition(")")[2].split()[index])
    except (OSError, ValueError, IndexError):
        return None
