"""Programs run together: what they say is passed on, and they end together, whatever happens to one of them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import sys
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from api.cli.errors import CliError
from api.cli.programs import tether
from api.contract.exits import Exit

GRACE_SECONDS = 5.0
"""Between TERM and KILL."""
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


@dataclass(slots=True, kw_only=True)
class _Child:
    name: str
    process: asyncio.subprocess.Process
    words: deque[str] = field(default_factory=lambda: deque(maxlen=_REMEMBERED))
    listening: asyncio.Task[None] | None = None

    @property
    def alive(self) -> bool:
        return self.process.returncode is None


class _AskedToEnd:
    """Ctrl-C, TERM or a closed terminal: the first time means *end*, the second *now*."""

    def __init__(self) -> None:
        self.end = asyncio.Event()
        self.now = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:  # nohup
                loop.add_signal_handler(number, self._again)

    def _again(self) -> None:
        (self.now if self.end.is_set() else self.end).set()


async def supervise(
    programs: Sequence[Program],
    say: Callable[[str], None],
    greet: Callable[[], Awaitable[None]] | None = None,
) -> None:
    """Run programs until a signal asks to end them; `greet` runs beside them at the start.

    Raises `CliError` when one ends by itself: with its own message and code where its set-up is at fault.
    """
    asked = _AskedToEnd()
    children: list[_Child] = []
    width = max(len(program.name) for program in programs)

    def hear(name: str, line: str) -> None:
        say(f"{name:<{width}} | {line}")

    greeting = asyncio.ensure_future(greet()) if greet else None
    try:
        for program in programs:
            children.append(await _start(program, hear))  # noqa: PERF401 - those before a failing one must be ended
        fallen = await _first_fallen(children, asked)
    finally:
        if greeting:
            greeting.cancel()
        await _end(children, asked)
    if fallen:
        raise _obituary(fallen)


async def _start(program: Program, hear: Callable[[str, str], None]) -> _Child:
    """Start a program, tied to this process, in a group of its own: Ctrl-C reaches it only through us."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-I", "-S", str(Path(tether.__file__)), str(os.getpid()), *program.command),
        env={**program.environment, "PYTHONUNBUFFERED": "1"},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        process_group=0,
    )
    child = _Child(name=program.name, process=process)
    child.listening = asyncio.create_task(_listen(child, hear))
    return child


async def _listen(child: _Child, hear: Callable[[str, str], None]) -> None:
    """Pass on what a child says, and remember the last of it. A reader that went away does not stop the child."""
    assert child.process.stdout is not None
    async for line in _lines(child.process.stdout):
        if line.strip():
            child.words.append(line)
        with contextlib.suppress(OSError):
            hear(child.name, line)


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


async def _first_fallen(children: Sequence[_Child], asked: _AskedToEnd) -> _Child | None:
    """Wait until a child ends by itself, or `None` when asked to end."""
    waits = {asyncio.create_task(child.process.wait()): child for child in children}
    end = asyncio.create_task(asked.end.wait())
    try:
        done, _ = await asyncio.wait([*waits, end], return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (*waits, end):
            task.cancel()
    return None if end in done else next(waits[task] for task in waits if task in done)


async def _end(children: Sequence[_Child], asked: _AskedToEnd) -> None:
    """TERM, and KILL for what has not heeded it in time; then hear their last words."""
    for child in children:
        if child.alive:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child.process.pid, signal.SIGTERM)  # asyncio's own terminate() may lose the exit code
    alive = [asyncio.create_task(child.process.wait()) for child in children]
    if alive:
        now = asyncio.create_task(asked.now.wait())
        everyone: asyncio.Future[Any] = asyncio.gather(*alive)
        await asyncio.wait([everyone, now], timeout=GRACE_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        now.cancel()
        for child in children:
            if child.alive:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(child.process.pid, signal.SIGKILL)
        await everyone
    words = [child.listening for child in children if child.listening]
    if words:
        await asyncio.wait(words, timeout=1.0)  # a grandchild may hold the pipe open


def _obituary(child: _Child) -> CliError:
    """Say how a child ended."""
    code = child.process.returncode or 0
    last = re.sub(r"^ai-factory[ a-z]*: ", "", child.words[-1]) if child.words else "(it said nothing)"
    if code in _SET_UP:
        return CliError(last, Exit(code))
    how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
    return CliError(f"The {child.name} {how}, so all was ended. Its last words: {last}")
