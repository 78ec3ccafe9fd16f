"""The door's process: who may come in, how many at a time, and the end of it.

It is told on standard input: a line of instructions; that the engine serves; that somebody has told the job to end; and
by the end of it that the engine has ended. There it says, while it drains, whether anybody has anything open.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import resource
import signal
import socket
import ssl
from collections import Counter
from pathlib import Path

from api.contract.job.folder import DRAIN
from api.contract.job.sockets import notice_silence
from api.contract.job.tls import CONTROLLER, WATCH, Credentials, server_context
from controller.wrapper.door.loopback import LoopbackPort
from controller.wrapper.door.opening import EMPTY, IN_USE, LAST_BYTES, SERVES, TOLD_TO_END, Instructions
from controller.wrapper.door.pipe import Caller, EngineSide
from controller.wrapper.files import lies_there
from controller.wrapper.ports import LOOPBACK

STDIN = 0

HANDSHAKE = 10.0
"""Seconds until a caller must have proved who it is."""

MOST_STRANGERS = 256
"""So many may be proving it at a time; of more the one that has been at it longest goes, since ours take a moment."""

MOST_CALLERS = 8192

SPARE = 64
"""Descriptors for all else."""

AT_ONCE = 64
"""Connections that are accepted before those that are open get a turn."""

SILENCE = 10
"""Seconds after which a peer that acknowledges nothing is taken for dead."""

STALLED = 120
"""Seconds for one in the midst of an answer: who merely does not read looks the same (tcp(7), TCP_USER_TIMEOUT)."""

LOOK = 1.0
"""Seconds between two looks for the file that has it drain, and at who rests while it does."""

ENGINE_TIMEOUT = 10.0
"""Seconds for the engine to take a connection."""


class Entrance:
    """Who has come, and what they are let to."""

    def __init__(self, listener: socket.socket, context: ssl.SSLContext, told: Instructions, limit: int) -> None:
        self._listener = listener
        self._context = context
        self._told = told
        self._loopback = None if told.port is None else LoopbackPort(told.port, os.getppid())
        self._most_strangers = min(MOST_STRANGERS, limit // 4)
        self._most_callers = min(MOST_CALLERS, (limit - SPARE - self._most_strangers) // 2)
        self._strangers: dict[asyncio.Task[None], None] = {}
        """Oldest first."""
        self._callers: set[Caller] = set()
        self._of_kind: Counter[str] = Counter()
        """How many of them there are of each kind of client."""
        self._watching: set[Caller] = set()
        self._serves = self._is_told_to_drain = self._is_told_to_end = self._is_empty = False
        self._over = asyncio.Event()
        self._empty = asyncio.Event()
        self._reserve = os.open(os.devnull, os.O_RDONLY)

    async def run(self) -> None:
        """Serve until the engine has ended, and what it said last has been passed on."""
        loop = asyncio.get_running_loop()
        self._listener.setblocking(False)
        loop.add_reader(self._listener, self._accept)
        loop.add_reader(STDIN, self._hear)
        looks = [loop.create_task(self._look_for_the_file()), loop.create_task(self._drain())]
        await self._over.wait()
        for look in looks:
            look.cancel()
        loop.remove_reader(STDIN)
        loop.remove_reader(self._listener)
        for stranger in list(self._strangers):
            stranger.cancel()
        for caller in list(self._callers):
            caller.hurry()
        self._look_around()
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._empty.wait(), LAST_BYTES)

    def _hear(self) -> None:
        """Take in what the wrapper says."""
        words = os.read(STDIN, 64)
        if not words:
            self._over.set()
        if SERVES in words:
            self._serves = True
            for caller in self._watching:
                caller.send(SERVES)
        if TOLD_TO_END in words:
            self._is_told_to_end = True
            for caller in list(self._watching):
                caller.close()  # the sign to look; who comes back watches on
            self._close_who_rests()
            self._look_around()

    @property
    def _drains(self) -> bool:
        return self._is_told_to_drain or self._is_told_to_end

    async def _look_for_the_file(self) -> None:
        """Drain while there is a file that says so. A file system that does not answer holds no stream up."""
        loop = asyncio.get_running_loop()
        while True:
            with contextlib.suppress(OSError):  # which says nothing of it
                self._is_told_to_drain = await loop.run_in_executor(None, lies_there, Path(self._told.folder), DRAIN)
            await asyncio.sleep(LOOK)

    async def _drain(self) -> None:
        while True:
            if self._drains:
                self._close_who_rests()
            self._tell_whether_empty()
            await asyncio.sleep(LOOK)

    def _close_who_rests(self) -> None:
        for caller in self._guests():
            if caller.rests():
                caller.close()

    def _guests(self) -> list[Caller]:
        """Return who has the engine answer requests: all but the controller, and those who watch."""
        return [caller for caller in self._callers - self._watching if caller.kind != CONTROLLER]

    def _accept(self) -> None:
        for _ in range(AT_ONCE):
            try:
                connection, _address = self._listener.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return
            except OSError:
                self._turn_away()
                return
            if len(self._callers) >= self._most_callers:
                connection.close()
            else:
                self._take_in(connection)

    def _turn_away(self) -> None:
        """Close who comes when there is no descriptor left, by means of the one in reserve."""
        with contextlib.suppress(OSError):
            os.close(self._reserve)
            self._listener.accept()[0].close()
        with contextlib.suppress(OSError):
            self._reserve = os.open(os.devnull, os.O_RDONLY)

    def _take_in(self, connection: socket.socket) -> None:
        if len(self._strangers) >= self._most_strangers:
            oldest = next(iter(self._strangers))
            del self._strangers[oldest]
            oldest.cancel()
        task = asyncio.get_running_loop().create_task(self._receive(connection))
        self._strangers[task] = None
        task.add_done_callback(lambda done: self._strangers.pop(done, None))

    async def _receive(self, connection: socket.socket) -> None:
        """Find out who it is, and let it in."""
        loop = asyncio.get_running_loop()
        caller = Caller(self._context, self._forget)
        notice_silence(connection, SILENCE)
        await loop.connect_accepted_socket(lambda: caller, connection)
        try:
            protocol = await asyncio.wait_for(caller.handshake, HANDSHAKE)
            self._strangers.pop(asyncio.current_task(), None)  # type: ignore[arg-type]
            self._know(caller)
            if protocol == WATCH:
                self._let_watch(caller)
            else:
                notice_silence(connection, STALLED)
                await asyncio.wait_for(self._let_in(caller), ENGINE_TIMEOUT)
        except (OSError, asyncio.TimeoutError):  # of which ssl.SSLError is one
            caller.close()
        except asyncio.CancelledError:
            caller.transport.abort()
            raise

    def _know(self, caller: Caller) -> None:
        """Take a caller on.

        Raises `OSError` while it drains, but for the controller, and where a caller's kind has as many connections as
        are left for the others.
        """
        caller.kind = caller.common_name()
        if self._drains and caller.kind != CONTROLLER:
            raise ConnectionRefusedError("it drains")
        if self._of_kind[caller.kind] >= self._most_callers - len(self._callers):
            raise ConnectionRefusedError("too many of its kind")
        self._of_kind[caller.kind] += 1
        self._callers.add(caller)
        self._tell_whether_empty()

    def _let_watch(self, caller: Caller) -> None:
        self._watching.add(caller)
        caller.transport.resume_reading()
        if self._serves:
            caller.send(SERVES)

    async def _let_in(self, caller: Caller) -> None:
        connection = await self._reach_engine()
        if caller.transport.is_closing() or self._over.is_set():
            connection.close()
            return
        loop = asyncio.get_running_loop()
        _, engine = await loop.create_connection(lambda: EngineSide(caller), sock=connection)
        caller.join(engine)

    async def _reach_engine(self) -> socket.socket:
        """Connect to the engine, and to nobody else; raises `OSError`."""
        loop = asyncio.get_running_loop()
        family = socket.AF_INET if self._loopback is not None else socket.AF_UNIX
        connection = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            if self._loopback is None:
                await _connect(connection, str(self._told.socket))
                return connection
            before = self._loopback.listeners()
            await loop.sock_connect(connection, (LOOPBACK, self._told.port))
            # Who listens before and after took the connection.
            if not before or self._loopback.listeners() != before:
                raise ConnectionRefusedError("it is not the engine that listens there")
        except BaseException:
            connection.close()
            raise
        return connection

    def _forget(self, caller: Caller) -> None:
        if caller in self._callers:
            self._callers.remove(caller)
            self._of_kind[caller.kind] -= 1
        self._watching.discard(caller)
        self._look_around()

    def _tell_whether_empty(self) -> None:
        is_empty = self._drains and not self._guests()
        if is_empty != self._is_empty:
            self._is_empty = is_empty
            with contextlib.suppress(OSError):  # the wrapper has gone, or hung up
                os.write(STDIN, EMPTY if is_empty else IN_USE)

    def _look_around(self) -> None:
        self._tell_whether_empty()
        if self._over.is_set() and not self._callers:
            self._empty.set()


async def _connect(connection: socket.socket, path: str) -> None:
    """Connect to a socket; where its queue is full the kernel does not say when it is not any more (connect(2))."""
    while True:
        try:
            connection.connect(path)
        except BlockingIOError:
            await asyncio.sleep(0.01)
        else:
            return


def main(listener: int) -> int:
    """Be the door of the port that this descriptor listens on."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)  # the wrapper decides when it is over
    with os.fdopen(STDIN, "rb", buffering=0, closefd=False) as stdin:
        line = stdin.readline()
    if not line:
        return 0
    told = Instructions(**json.loads(line))
    context = server_context(Credentials(told.certificate, told.key), told.authority)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    asyncio.run(_serve(listener, context, told, most))
    return 0


async def _serve(listener: int, context: ssl.SSLContext, told: Instructions, limit: int) -> None:
    with socket.socket(fileno=listener) as entrance:
        await Entrance(entrance, context, told, limit).run()
