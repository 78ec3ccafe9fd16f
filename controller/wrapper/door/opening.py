"""The door as the wrapper sees it: started before the engine, told when that serves, and ended after it."""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from api.contract.job.parameters import Door
from api.contract.job.words import ExitReason
from controller.wrapper.files import say
from controller.wrapper.process import Child
from controller.wrapper.report import Ending, FailedError
from controller.wrapper.signals import Signals

COMMAND = "door"
"""The wrapper's bundle, called so, is the door."""

SERVES = b"1"
"""What the door is told once the engine accepts connections, and what it tells those who watch."""

TOLD_TO_END = b"t"
"""What the door is told once somebody has told the job to end: it drains from then on."""

EMPTY = b"e"
"""What the door says once it drains and nobody has anything open on the engine."""

IN_USE = b"u"
"""What it says when that is over."""

LAST_BYTES = 2.0
"""Seconds for what the engine has said last to reach who asked."""


@dataclass(frozen=True)
class Instructions:
    """What the door is told on its standard input, in one line."""

    certificate: str
    key: str
    authority: str
    port: int | None
    """The engine's, on loopback."""
    socket: str | None
    """The engine's."""
    folder: str
    """The job's, where the file lies that has the door drain."""


@dataclass(frozen=True)
class Premises:
    """What a job with a door has of its node, whatever becomes of the door's process."""

    door: Door
    entrance: socket.socket
    """It listens on the door's port."""
    sockets: Path
    """A folder for the engine's socket."""
    folder: Path
    """The job's."""

    @property
    def port(self) -> int:
        """The door's."""
        return int(self.entrance.getsockname()[1])


class OpenDoor:
    """The process of the door before one engine. Raises `FailedError` (`DoorFailed`) if it can't be started."""

    def __init__(self, premises: Premises, port: int | None, path: Path | None, signals: Signals) -> None:
        self.is_empty = False
        """Whether it lets nobody new in, and nobody has anything open on the engine."""
        self._signals = signals
        door, entrance = premises.door, premises.entrance.fileno()
        at = None if path is None else str(path)
        told = Instructions(door.certificate, door.key, door.authority, port, at, str(premises.folder))
        bundle = str(Path(sys.argv[0]).resolve())
        command = [sys.executable, "-I", "-X", "utf8", bundle, COMMAND, str(entrance)]
        self._line, its_end = socket.socketpair()
        try:
            self._child = Child(command, os.environ, premises.sockets, stdin=its_end.fileno(), descriptors=[entrance])
        except OSError as error:
            self._line.close()
            raise FailedError(
                ExitReason.DOOR_FAILED, f"the door can't be started: {error.strerror or error}"
            ) from error
        finally:
            its_end.close()
        signals.readers[self._line.fileno()] = self._hear
        self._say(json.dumps(asdict(told)).encode() + b"\n")

    def ended(self) -> Ending | None:
        """Tell how the job ends whose door has ended; `None`: it has not."""
        code = self._child.exit_code()
        if code is None:
            return None
        return Ending(1, ExitReason.DOOR_FAILED, f"the door ended with {code}, so nobody reaches the engine any more")

    def serves(self) -> None:
        """Say that the engine accepts connections."""
        self._say(SERVES)

    def drain(self) -> None:
        """Say that the job is told to end: who watches is to look, and nobody new is let in but the controller."""
        self._say(TOLD_TO_END)

    def finish(self) -> None:
        """Close what only waits, and let what the engine has said last reach who asked."""
        self._hang_up()
        deadline = time.monotonic() + LAST_BYTES
        while self._child.exit_code() is None and time.monotonic() < deadline:
            self._signals.wait(deadline - time.monotonic())

    def close(self) -> None:
        """End it at once."""
        self._child.cut()
        self._hang_up()

    def _hang_up(self) -> None:
        self._signals.readers.pop(self._line.fileno(), None)
        self._line.close()

    def _hear(self) -> None:
        """Take a word of the door's, or its end."""
        try:
            word = self._line.recv(64)
        except OSError:
            word = b""
        if not word:
            self._signals.readers.pop(self._line.fileno(), None)
        if EMPTY in word or IN_USE in word:
            self.is_empty = word.rfind(EMPTY) > word.rfind(IN_USE)
        self._signals.wake()

    def _say(self, words: bytes) -> None:
        try:
            self._line.sendall(words)
        except OSError as error:
            say(f"the door does not listen: {error.strerror}")
