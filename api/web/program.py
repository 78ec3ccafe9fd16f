"""Programs that serve HTTP: they read the settings, say clearly why they can't start, and serve until TERM.

Who supervises them may hand them what listens, and be told once they serve (`api.cli.programs.child`).
"""

from __future__ import annotations

import argparse
import asyncio
import os
import socket
import sys
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

import uvloop

from api.contract.configuration import load
from api.contract.descriptors import raise_limit
from api.contract.exits import ExitError
from api.contract.settings import Settings
from api.web.log import log_to_stderr


@dataclass(frozen=True, slots=True)
class Inherited:
    """What a program has from its supervisor."""

    listening: Sequence[socket.socket] = ()
    """Empty: it is to listen by itself."""
    ready: int | None = None
    """The descriptor by which it tells that it serves."""

    def tell_ready(self) -> None:
        """Tell it."""
        if self.ready is not None:
            os.write(self.ready, b"\n")
            os.close(self.ready)


NOTHING = Inherited()
Serve = Callable[[Settings, Inherited], Coroutine[Any, Any, None]]


def main(name: str, about: str, serve: Serve) -> None:
    """Run the program and exit."""
    parser = argparse.ArgumentParser(prog=f"python -m {name}", description=about)
    parser.add_argument("--config", metavar="FILE", help="the TOML file with the settings")
    parser.add_argument("--set", metavar="KEY=VALUE", action="append", default=[], help="a setting, e.g. api.port=8002")
    parser.add_argument("--listening", metavar="FD", type=int, action="append", default=[], help=argparse.SUPPRESS)
    parser.add_argument("--ready", metavar="FD", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    flags = dict(item.partition("=")[::2] for item in options.set)
    try:
        settings = load(flags, config=options.config)
    except ExitError as error:
        sys.exit(_say(error))
    inherited = Inherited([_own(number) for number in options.listening], options.ready)
    sys.exit(run(settings, serve, inherited))


def run(settings: Settings, serve: Serve, inherited: Inherited = NOTHING) -> int:
    """Serve until TERM or INT; return the exit code. What prevents the start is said on standard error."""
    log_to_stderr(settings)
    raise_limit()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        try:
            runner.run(serve(settings, inherited))
        except ExitError as error:
            return _say(error)
    return 0


def _own(descriptor: int) -> socket.socket:
    """Take an inherited socket, which no program that this one starts inherits again."""
    os.set_inheritable(descriptor, False)
    return socket.socket(fileno=descriptor)


def _say(error: ExitError) -> int:
    print(error, file=sys.stderr)
    return error.code
