"""Programs run together: what they say is passed on, they are replaced without a gap, and they end together.

What listens is held here, and never closed before the end. A program that is to be replaced goes on until its
successor is ready; then both have the same sockets, and the old one stops to accept, answers what it is at, and ends.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

from api.cli.errors import CliError
from api.cli.programs.child import Child, Program, start

GRACE_SECONDS = 5.0
"""Between TERM and KILL."""
PAUSE_SECONDS = 1.0
"""Before a program that ended by itself is started again."""
LEAVE, REPLACE = signal.SIGQUIT, signal.SIGUSR2
"""Tells a program to answer what it is at and then to end; tells us to replace all programs."""


class _Asked:
    """Ctrl-C, TERM or a closed terminal: the first time means *end*, the second *now*. USR2 means *replace*."""

    def __init__(self) -> None:
        self.end = asyncio.Event()
        self.now = asyncio.Event()
        self.replace = asyncio.Event()
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(REPLACE, self.replace.set)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:  # nohup
                loop.add_signal_handler(number, self._again)

    def _again(self) -> None:
        (self.now if self.end.is_set() else self.end).set()


async def supervise(
    programs: Sequence[Program],
    say: Callable[[str], None],
    greet: Callable[[], Awaitable[None]] | None = None,
    prepare: Callable[[], Awaitable[None]] | None = None,
) -> None:
    """Run programs until a signal asks to end them; `greet` runs beside them, once all that listen are ready.

    `prepare` runs before they are replaced; if it raises `CliError`, nothing is replaced.
    Raises `CliError` when one ends by itself: with its own message and code where its set-up is at fault.
    """
    asked = _Asked()
    supervisor = Supervisor(programs, say)
    beside: list[asyncio.Task[None]] = []
    try:
        await supervisor.start()
        beside.append(asyncio.create_task(supervisor.replace_when(asked.replace, prepare)))
        if greet:
            beside.append(asyncio.create_task(supervisor.greet(greet)))
        fallen = await supervisor.first_fallen(asked.end)
    finally:
        for task in beside:
            task.cancel()
        await supervisor.end(asked.now)
    if fallen:
        raise fallen.obituary()


class Supervisor:
    """Keeps one child of each program."""

    def __init__(self, programs: Sequence[Program], say: Callable[[str], None]) -> None:
        self._programs = programs
        self._say = say
        self._width = max(len(program.name) for program in programs)
        self._is_told_apart = len({program.name for program in programs}) > 1
        self._current: dict[int, Child] = {}
        """The child of each program, by the program's place in the list."""
        self._watched: dict[Child, asyncio.Task[None]] = {}
        """All that live, also those that are leaving."""
        self._proved: set[int] = set()
        """The places of programs that have been ready once, so that their set-up was not at fault."""
        self._fallen: asyncio.Future[Child] = asyncio.get_running_loop().create_future()

    async def start(self) -> None:
        """Start all programs."""
        for place in range(len(self._programs)):
            self._current[place] = await self._start(place)

    async def greet(self, greet: Callable[[], Awaitable[None]]) -> None:
        """Greet once all that listen serve; whoever has fallen before is told of elsewhere."""
        listening = [child for child in self._current.values() if child.program.listening]
        if all([await child.serves() for child in listening]):
            await greet()

    async def first_fallen(self, end: asyncio.Event) -> Child | None:
        """Wait until a program ends by itself that is not started again, or `None` when asked to end."""
        asked = asyncio.create_task(end.wait())
        waits: list[asyncio.Future[Any]] = [self._fallen, asked]
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        asked.cancel()
        return self._fallen.result() if self._fallen.done() else None

    async def replace_when(self, asked: asyncio.Event, prepare: Callable[[], Awaitable[None]] | None) -> None:
        """Replace all programs whenever that is asked for."""
        while await asked.wait():
            asked.clear()
            try:
                if prepare:
                    await prepare()
                await self._replace()
            except CliError as error:
                self._say(f"Nothing was replaced, and all goes on as it was: {error}")

    async def end(self, now: asyncio.Event) -> None:
        """TERM, and KILL for what has not heeded it in time; then hear their last words."""
        children = list(self._watched)
        for task in self._watched.values():
            task.cancel()
        await self._end(children, now)
        for child in self._current.values():
            await child.until_last_words()

    async def _start(self, place: int) -> Child:
        program = self._programs[place]
        child = await start(program, partial(self._hear, program.name))
        self._watched[child] = asyncio.create_task(self._watch(place, child))
        return child

    def _hear(self, name: str, line: str) -> None:
        self._say(f"{name:<{self._width}} | {line}" if self._is_told_apart else line)

    async def _watch(self, place: int, child: Child) -> None:
        """Wait for a child's end, and see to what is to be done then."""
        await child.until_ended()
        if self._current.get(place) is child:
            if child.was_ready:
                self._proved.add(place)
            if child.program.is_restarted and place in self._proved:
                await self._start_again(place, child)
            elif not self._fallen.done():
                self._fallen.set_result(child)
        del self._watched[child]

    async def _start_again(self, place: int, ended: Child) -> None:
        self._say(f"A {ended.program.name} {ended.end}, and is started again.")
        await asyncio.sleep(PAUSE_SECONDS)
        if self._current[place] is ended:  # not replaced meanwhile
            self._current[place] = await self._start_in_the_end(place)

    async def _start_in_the_end(self, place: int) -> Child:
        """Start what nothing runs in the place of, however long the host lacks what that takes."""
        while True:
            try:
                return await self._start(place)
            except CliError as error:
                self._say(f"{error} It is tried again.")
                await asyncio.sleep(PAUSE_SECONDS)

    async def _replace(self) -> None:
        """Replace what listens, without a gap; then end the rest, and start it anew. Raises `CliError`."""
        places = range(len(self._programs))
        successors = await self._ready([place for place in places if self._programs[place].listening])
        for place, successor in successors.items():
            former, self._current[place] = self._current[place], successor
            former.tell(LEAVE)
        for place in places:
            if place not in successors:
                former = self._current.pop(place)
                await self._end([former], asyncio.Event())
                self._current[place] = await self._start_in_the_end(place)
        self._say("All programs were replaced. The former ones answer what they are at, and end.")

    async def _ready(self, places: Sequence[int]) -> dict[int, Child]:
        """Start a successor for each, and wait until all are ready; raises `CliError`, and then none is left."""
        successors: dict[int, Child] = {}
        try:
            for place in places:
                successors[place] = await self._start(place)
            for successor in successors.values():
                await successor.until_ready()
            for successor in successors.values():
                if not successor.is_alive:  # while another was waited for
                    raise successor.obituary()
        except CliError:
            await self._end(list(successors.values()), asyncio.Event())
            raise
        return successors

    async def _end(self, children: Sequence[Child], now: asyncio.Event) -> None:
        for child in children:
            child.tell(signal.SIGTERM)
        ends: asyncio.Future[Any] = asyncio.gather(*(child.until_ended() for child in children))
        at_once = asyncio.create_task(now.wait())
        await asyncio.wait([ends, at_once], timeout=GRACE_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        at_once.cancel()
        for child in children:
            child.kill()
        await ends
