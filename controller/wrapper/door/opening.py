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


@dataclass(frozen=True)
class Premises:
    """What a job with a door has of its node, whatever becomes of the door's process."""

    door: Door
    entrance: socket.socket
    """It listens on the door's port."""
    sockets: Path
    """A folder for the engine's socket."""

    @property
    def port(self) -> int:
        """The door's."""
        return int(self.entrance.getsockname()[1])


class OpenDoor:
    """The process of the door before one engine. Raises `FailedError` (`DoorFailed`) if it can't be started."""

    def __init__(self, premises: Premises, port: int | None, path: Path | None) -> None:
        door, entrance = premises.door, premises.entrance.fileno()
        told = Instructions(door.certificate, door.key, door.authority, port, None if path is None else str(path))
        bundle = str(Path(sys.argv[0]).resolve())
        command = [sys.executable, "-I", "-X", "utf8", bundle, COMMAND, str(entrance)]
        hears, tells = os.pipe()
        self._words = os.fdopen(tells, "wb", buffering=0)
        try:
            self._child = Child(command, os.environ, premises.sockets, stdin=hears, descriptors=[entrance])
        except OSError as error:
            self._words.close()
            raise FailedError(
                ExitReason.DOOR_FAILED, f"the door can't be started: {error.strerror or error}"
            ) from error
        finally:
            os.close(hears)
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

    def finish(self, signals: Signals) -> None:
        """Close what only waits, and let what the engine has said last reach who asked."""
        self._words.close()
        deadline = time.monotonic() + LAST_BYTES
        while self._child.exit_code() is None and time.monotonic() < deadline:
            signals.wait(deadline - time.monotonic())

    def close(self) -> None:
        """End it at once."""
        self._child.cut()
        self._words.close()

    def _say(self, words: bytes) -> None:
        try:
            self._words.write(words)
        except OSError as error:
            say(f"the door does not listen: {error.strerror}")
