"""Processes that have no file descriptors left, and clients that hold connections and say nothing."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
STRANGER = 54321
"""A uid that nobody has."""


@contextmanager
def none_left() -> Iterator[None]:
    """Leave this process no descriptor, whatever it closes: who needs a new one meets EMFILE."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))  # what is open stays so, and what is closed is not given out
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@contextmanager
def all_in_use() -> Iterator[None]:
    """Leave this process no descriptor but those that it closes meanwhile."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest_free = os.open("/dev/null", os.O_RDONLY)
    os.close(lowest_free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def opened_by(process: int | str = "self") -> list[str]:
    """Return what a process has open, but for what it closes meanwhile."""
    found = []
    for link in Path(f"/proc/{process}/fd").iterdir():
        with suppress(FileNotFoundError):
            found.append(str(link.readlink()))
    return found


def limited_to(number: int | None) -> list[str]:
    """Return what is put before a command so that it may have so many descriptors at most, and half at first."""
    if number is None:
        return []
    return ["sh", "-c", f'ulimit -Sn {number // 2}; ulimit -Hn {number}; exec "$@"', "sh"]


class Idle:
    """A process that holds connections and sends nothing but what it is told, once for each."""

    def __init__(self, port: int, number: int, *, uid: int | None = None, said: bytes = b"") -> None:
        words = [str(port), str(number), str(os.getuid() if uid is None else uid), said.hex()]
        self._process = subprocess.Popen(
            [sys.executable, "-IS", __file__, *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.opened = self._next()

    def still_open(self) -> int:
        """Return how many of them the other end has not closed."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return self._next()

    def end(self) -> None:
        self._process.communicate()

    def _next(self) -> int:
        assert self._process.stdout is not None
        return int(self._process.stdout.readline())


@contextmanager
def idle(port: int, number: int, *, uid: int | None = None, said: bytes = b"") -> Iterator[Idle]:
    """Hold so many connections meanwhile, as another user if a `uid` is given."""
    holding = Idle(port, number, uid=uid, said=said)
    try:
        yield holding
    finally:
        holding.end()


def _hold(port: int, number: int, uid: int, said: bytes) -> None:
    import encodings.idna  # noqa: F401 - another user may not be able to read where it lies
    import socket

    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if uid != os.getuid():
        os.setuid(uid)
    held = []
    for _ in range(number):
        with suppress(OSError):
            one = socket.create_connection(("127.0.0.1", port), timeout=10)
            one.sendall(said)
            held.append(one)
    print(len(held), flush=True)
    for _ in sys.stdin:
        print(sum(map(_is_open, held)), flush=True)


def _is_open(one: object) -> bool:
    try:
        one.setblocking(False)  # type: ignore[attr-defined]
        return bool(one.recv(1000))  # type: ignore[attr-defined]
    except BlockingIOError:
        return True
    except OSError:
        return False


if __name__ == "__main__":
    _hold(int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), bytes.fromhex(sys.argv[4]))
