"""The job's output, which a process of its own reads from pipes and writes into bounded logs.

The engine, all that it starts, and we ourselves write into the pipes. Who writes faster than the disk takes it waits.
Both ends of the pipes are open here too: the writer may die, and nobody who writes hears of that, nor is a byte lost;
another one takes its place. Should we be killed it goes on until nobody is left who could write.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from api.contract.job.folder import STDERR, STDOUT
from controller.wrapper.files import say
from controller.wrapper.logs.bounded import BoundedLog
from controller.wrapper.logs.reading import Logs
from controller.wrapper.process import spared

AT_ONCE = 1024 * 1024
"""Bytes: as many as a pipe may hold, so that one reading takes all that was there."""
SETTLE_SECONDS = 5.0
"""How long what is on its way may take to the disk before it is no longer waited for."""
AGAIN_SECONDS = 1.0
"""Between two starts of the writer."""

_FILES = {1: STDOUT, 2: STDERR}


class Output:
    """Our output, and that of all we start. It is led through pipes from `open` to `close`, where logs are bounded."""

    def __init__(self, folder: Path, most: int = 0) -> None:
        self._folder = folder
        paths = {number: folder / name for number, name in _FILES.items()}
        self._paths = {number: path for number, path in paths.items() if most and _goes_to(number, path)}
        self._most = most
        self._pipes: dict[int, Path] = {}
        self._writer = 0
        self._started_at = float("-inf")
        self._told: socket.socket | None = None

    def logs(self) -> Logs:
        """Return what is written from now on."""
        return Logs(self._folder, before_reading=self.settle)

    def open(self) -> None:
        """Lead it through pipes. Raises `OSError`."""
        for number, path in self._paths.items():
            read, write = os.pipe()
            os.set_blocking(read, False)
            os.dup2(write, number)
            os.close(write)
            self._pipes[read] = path
        self.tend()

    def tend(self) -> None:
        """Start the writer, or another one where it has died."""
        if not self._pipes or _is_running(self._writer) or time.monotonic() < self._started_at + AGAIN_SECONDS:
            return
        before, self._started_at = self._writer, time.monotonic()
        spared.discard(before)
        ours, its = socket.socketpair()
        ours.settimeout(SETTLE_SECONDS)
        pid = os.fork()
        if pid == 0:
            _be_writer({read: (path, self._most) for read, path in self._pipes.items()}, its)
        its.close()
        if self._told is not None:
            self._told.close()
        self._writer, self._told = pid, ours
        spared.add(pid)
        if before:
            say("what writes the logs had died, and was started again")

    def settle(self) -> None:
        """Wait until what was written up to now is in the logs."""
        if self._pipes and self._told is not None:
            with contextlib.suppress(OSError):
                self.tend()
                self._told.send(b"?")
                self._told.recv(1)

    def close(self) -> None:
        """Write to the logs directly again."""
        self.settle()
        for number, path in self._paths.items():
            with contextlib.suppress(OSError):
                log = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
                os.dup2(log, number)
                os.close(log)
        for read in self._pipes:
            os.close(read)
        self._pipes = {}
        with contextlib.suppress(OSError):
            if self._writer:
                os.kill(self._writer, signal.SIGKILL)
                os.waitpid(self._writer, 0)


@contextmanager
def bounded(folder: Path, most: int) -> Iterator[Output]:
    """Keep a job's logs, each, at three times `most` bytes; 0: let them grow. Raises `OSError`."""
    output = Output(folder, most)
    try:
        output.open()
        yield output
    finally:
        output.close()


def _goes_to(number: int, log: Path) -> bool:
    """Whether what we write to a descriptor goes into this file. By hand it may go anywhere."""
    try:
        return os.path.samestat(os.fstat(number), log.stat())
    except OSError:
        return False


def _is_running(child: int) -> bool:
    try:
        return child != 0 and os.waitpid(child, os.WNOHANG)[0] == 0
    except ChildProcessError:  # whoever waits for all of them has heard of its end
        return False


def _be_writer(pipes: Mapping[int, tuple[Path, int]], asking: socket.socket) -> None:
    """Write until nobody is left who could write into the pipes. Does not return."""
    try:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
            signal.signal(number, signal.SIG_IGN)
        _let_go_of_all_but({*pipes, asking.fileno()})
        _write_on({read: BoundedLog(path, most) for read, (path, most) in pipes.items()}, asking)
    finally:
        os._exit(0)


def _let_go_of_all_but(kept: set[int]) -> None:
    """Close what was inherited: an open end of a pipe would keep others from hearing that its owner is gone."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    for number in range(3):
        os.dup2(nowhere, number)
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208
        if int(name) > 2 and int(name) not in kept:
            with contextlib.suppress(OSError):
                os.close(int(name))


def _write_on(logs: dict[int, BoundedLog], asking: socket.socket) -> None:
    poll = select.poll()
    for file in (*logs, asking.fileno()):
        poll.register(file, select.POLLIN)
    while logs:
        ready = [file for file, _ in poll.poll()]
        for read in [file for file in ready if file in logs]:
            if not _took(read, logs[read]):
                poll.unregister(read)
                del logs[read]
        if asking.fileno() in ready and not _answered(asking, logs):
            poll.unregister(asking.fileno())


def _took(read: int, log: BoundedLog) -> bool:
    """Write what a pipe holds; say whether more may come."""
    try:
        text = os.read(read, AT_ONCE)
    except BlockingIOError:
        return True
    log.write(text)
    return bool(text)


def _answered(asking: socket.socket, logs: Mapping[int, BoundedLog]) -> bool:
    """Answer who asks whether all is written that was in the pipes then; say whether anybody may ask again."""
    if not asking.recv(64):
        return False
    for read, log in logs.items():
        _took(read, log)
    with contextlib.suppress(OSError):
        asking.send(b"!")
    return True
