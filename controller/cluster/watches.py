"""Watches: a connection to each door, which the door itself keeps open until its engine ends.

What is heard there, that an engine begins to answer or that the connection has closed, is a reason to look, never a
verdict. What is not watched is probed by turns as ever.

A held connection is a bare TLS socket with a callback, a fraction of what a stream of asyncio's costs (measured).
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial

from api.contract.doors import Way
from api.contract.job.sockets import notice_silence
from controller.queue import KeyedQueue

log = logging.getLogger(__name__)

PER_SECOND = 100
"""Connections opened; a handshake costs a millisecond of processor, and the lease must not wait."""
AT_ONCE = 32
"""Connections being opened: nodes that are down answer late."""
PATIENCE = 10.0
"""Seconds for an opening."""
AGAIN = 1.0
"""Seconds until a connection that closed is opened again, should its attempt still stand."""
SILENCE = 10
"""Seconds after which a node that answers nothing is taken for gone; nothing else would say so."""


class Watches:
    """All connections of a term, at most so many."""

    def __init__(self, heard: Callable[[str, bool], None], most: int) -> None:
        """`heard` is called with the token, and whether the connection has closed."""
        self._heard = heard
        self._most = most
        self._waiting: dict[str, Way] = {}
        """Doors for which there is no room; who has waited longest is first."""
        self._ways: dict[str, Way] = {}
        self._held: dict[str, ssl.SSLSocket] = {}
        self._opening: dict[str, asyncio.Task[None]] = {}
        self._queue = KeyedQueue(time.monotonic)
        self._free = asyncio.Semaphore(AT_ONCE)
        self._turns: asyncio.Task[None] | None = None

    def watch(self, token: str, way: Way) -> None:
        """Hold a connection to an attempt's door from now on, or once there is room; nothing happens if it is."""
        if way in (self._ways.get(token), self._waiting.get(token)):
            return
        self.forget(token)
        self._waiting[token] = way
        self._take_in()

    def forget(self, token: str) -> None:
        """Let go of a door; another takes its place."""
        self._waiting.pop(token, None)
        self._ways.pop(token, None)
        if token in self._opening:
            self._opening[token].cancel()
        self._drop(token)
        self._take_in()

    @property
    def held(self) -> int:
        """How many connections stand."""
        return len(self._held)

    async def close(self) -> None:
        """Let go of all."""
        tasks = [*self._opening.values(), *([self._turns] if self._turns is not None else [])]
        self._waiting.clear()
        for token in list(self._ways):
            self.forget(token)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _take_in(self) -> None:
        """Have doors opened for which there is room."""
        while self._waiting and len(self._ways) < self._most:
            token = next(iter(self._waiting))
            self._ways[token] = self._waiting.pop(token)
            self._queue.add(token)
            if self._turns is None:
                self._turns = asyncio.create_task(self._take_turns())

    async def _take_turns(self) -> None:
        while (token := await self._queue.get()) is not None:
            if token not in self._ways:
                self._queue.done(token)
                continue
            await self._free.acquire()
            opening = asyncio.create_task(self._open(token))
            self._opening[token] = opening
            opening.add_done_callback(partial(self._opened, token))
            await asyncio.sleep(1 / PER_SECOND)

    def _opened(self, token: str, opening: asyncio.Task[None]) -> None:
        del self._opening[token]
        self._free.release()
        if opening.cancelled() or token not in self._ways:
            self._queue.done(token)
        elif (error := opening.exception()) is not None:
            log.debug("no watch yet", extra={"token": token, "error": str(error)})
            self._queue.retry(token)
        else:
            self._queue.done(token)

    async def _open(self, token: str) -> None:
        way = self._ways[token]
        async with asyncio.timeout(PATIENCE):
            connection = await _connect(way)
        if self._ways.get(token) is not way:
            connection.close()
            return
        self._held[token] = connection
        asyncio.get_running_loop().add_reader(connection, self._read, token)
        self._read(token)  # what came with the handshake is in no socket any more

    def _read(self, token: str) -> None:
        """Take a word of the door's, or its end."""
        try:
            word = self._held[token].recv(16)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return
        except OSError:
            word = b""
        if not word:
            self._drop(token)
            self._queue.add(token, time.monotonic() + AGAIN)
        self._heard(token, not word)

    def _drop(self, token: str) -> None:
        connection = self._held.pop(token, None)
        if connection is not None:
            asyncio.get_running_loop().remove_reader(connection)
            connection.close()


async def _connect(way: Way) -> ssl.SSLSocket:
    """Open a connection and shake hands; raises `OSError`."""
    assert way.watch is not None
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(way.host, way.port, type=socket.SOCK_STREAM)
    family, kind, protocol, _, address = found[0]
    plain = socket.socket(family, kind, protocol)
    try:
        plain.setblocking(False)
        notice_silence(plain, SILENCE)
        await loop.sock_connect(plain, address)
        connection = way.watch.wrap_socket(plain, server_hostname=way.name, do_handshake_on_connect=False)
    except BaseException:
        plain.close()
        raise
    try:
        await _shake_hands(connection)
    except BaseException:
        connection.close()
        raise
    return connection


async def _shake_hands(connection: ssl.SSLSocket) -> None:
    loop = asyncio.get_running_loop()
    while True:
        try:
            connection.do_handshake()
        except ssl.SSLWantReadError:
            await _until(loop.add_reader, loop.remove_reader, connection)
        except ssl.SSLWantWriteError:
            await _until(loop.add_writer, loop.remove_writer, connection)
        else:
            return


async def _until(add: Callable[..., None], remove: Callable[[socket.socket], bool], connection: socket.socket) -> None:
    """Wait until a socket can be read from or written to."""
    ready = asyncio.Event()
    add(connection, ready.set)
    try:
        await ready.wait()
    finally:
        with suppress(ValueError):
            remove(connection)
