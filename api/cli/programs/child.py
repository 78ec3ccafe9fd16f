"""A program that runs as a child: its start, what it says, when it is ready, and how it ended."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import socket
import sys
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from api.cli.errors import CliError
from api.cli.programs import tether
from api.contract.exits import Exit

READY_SECONDS = 60.0
"""For which a successor is waited for."""
_SET_UP = (Exit.SETUP, Exit.UNREACHABLE)
"""Exit codes with which the programs say, in one line, why they can't start."""
_REMEMBERED = 20
_LONGEST_LINE = 65536


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """What to run."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    listening: Sequence[socket.socket] = ()
    """What it accepts connections from. They stay this process's, and a successor gets the same: none is lost."""
    is_restarted: bool = False
    """Whether it is started again when it ends by itself, once it has been ready."""


class Child:
    """A program that has been started."""

    def __init__(self, program: Program, process: asyncio.subprocess.Process, ready: asyncio.Future[bool]) -> None:
        self.program = program
        self._process = process
        self._ready = ready
        self._words: deque[str] = deque(maxlen=_REMEMBERED)
        self._listening: asyncio.Task[None] | None = None

    @property
    def is_alive(self) -> bool:
        """Whether it has not ended."""
        return self._process.returncode is None

    @property
    def ended_well(self) -> bool:
        """Whether it has ended with exit code 0."""
        return self._process.returncode == 0

    @property
    def was_ready(self) -> bool:
        """Whether it has come to serve."""
        return self._ready.done() and self._ready.result()

    async def serves(self) -> bool:
        """Wait until it serves; whether it has come to that before its end."""
        return await asyncio.shield(self._ready)

    async def until_ready(self) -> None:
        """Wait until it serves; raises `CliError` if it ends before, or takes too long."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(READY_SECONDS):
                if await self.serves():
                    return
            await self.until_last_words()
            raise self.obituary()
        raise CliError(f"The {self.program.name} was not ready after {READY_SECONDS:g} s.")

    async def until_ended(self) -> None:
        """Wait until it has ended."""
        await self._process.wait()

    async def until_last_words(self) -> None:
        """Hear what it said before it ended; a child of its own may hold the pipe open."""
        await self._process.wait()
        if self._listening:
            await asyncio.wait([self._listening], timeout=1.0)

    def tell(self, number: signal.Signals) -> None:
        """Send it a signal."""
        if self.is_alive:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._process.pid, number)  # asyncio's own terminate() may lose the exit code

    def kill(self) -> None:
        """Kill it, and what it started."""
        if self.is_alive:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def listen(self, hear: Callable[[str], None]) -> None:
        """Pass on what it says, and remember the last of it. A reader that went away does not stop the child."""
        self._listening = asyncio.create_task(self._listen(hear))

    async def _listen(self, hear: Callable[[str], None]) -> None:
        assert self._process.stdout is not None
        async for line in _lines(self._process.stdout):
            if line.strip():
                self._words.append(line)
            with contextlib.suppress(OSError):
                hear(line)

    @property
    def end(self) -> str:
        """Say how it ended."""
        code = self._process.returncode or 0
        return f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"

    def obituary(self) -> CliError:
        """Say how it ended: with its own message and code where its set-up is at fault."""
        code = self._process.returncode or 0
        last = re.sub(r"^ai-factory[ a-z]*: ", "", self._words[-1]) if self._words else "(it said nothing)"
        if code in _SET_UP:
            return CliError(last, Exit(code))
        return CliError(f"The {self.program.name} {self.end}. Its last words: {last}")


async def start(program: Program, hear: Callable[[str], None]) -> Child:
    """Start a program; raises `CliError` where this host lacks what that takes."""
    try:
        return await _start(program, hear)
    except OSError as error:
        raise CliError(f"The {program.name} can't be started: {error.strerror or error}.") from error


async def _start(program: Program, hear: Callable[[str], None]) -> Child:
    """Start it tied to this process, in a group of its own: Ctrl-C reaches it only through us."""
    told, tells = os.pipe()
    try:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-S", str(Path(tether.__file__)), str(os.getpid()), *program.command),
            *(_handed(program, tells) if program.listening else ()),
            env={**program.environment, "PYTHONUNBUFFERED": "1"},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            process_group=0,
            pass_fds=[tells, *(each.fileno() for each in program.listening)],
        )
    except BaseException:
        os.close(told)
        raise
    finally:
        os.close(tells)
    child = Child(program, process, _readiness(told))
    child.listen(hear)
    return child


def _handed(program: Program, tells: int) -> list[str]:
    """Return the options of `api.web.program` that name what a program inherits."""
    return [f"--ready={tells}", *(f"--listening={each.fileno()}" for each in program.listening)]


def _readiness(told: int) -> asyncio.Future[bool]:
    """Return what becomes True when the other end of a pipe says something, and False if it is closed before."""
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[bool] = loop.create_future()

    def read() -> None:
        loop.remove_reader(told)
        said = os.read(told, 1)
        os.close(told)
        if not ready.done():
            ready.set_result(bool(said))

    loop.add_reader(told, read)
    return ready


async def _lines(stream: asyncio.StreamReader) -> AsyncIterator[str]:
    rest = b""
    while chunk := await stream.read(_LONGEST_LINE):
        *lines, rest = (rest + chunk).split(b"\n")
        if len(rest) > _LONGEST_LINE:
            lines, rest = [*lines, rest], b""
        for line in lines:
            yield line.decode(errors="replace").rstrip()
    if rest:
        yield rest.decode(errors="replace").rstrip()
