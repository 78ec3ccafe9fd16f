"""Connections to engines, kept for the next request: a handshake costs more than all else of a request."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass, field
from functools import partial
from weakref import WeakValueDictionary

from api.contract.asking import CONNECT_SECONDS, NotConnectedError
from api.contract.doorless import authorization
from api.contract.doors import Doors, UnknownKeyError, Way
from api.contract.job.sockets import notice_death
from api.gateway.exchange import Exchange
from api.web.replicas import ReadyReplica

IDLE_SECONDS = 4.0
"""uvicorn, which vLLM is served by, closes a connection that has been idle for 5 s."""
MOST_IDLE = 64
"""For each replica."""
SWEEP_SECONDS = 0.5
"""How often it is looked which have been idle too long: a timer for each would cost each request."""
MOST_OPENING = 16
"""For each replica. A thousand handshakes at once take a replica and us longer than any of them may take."""


@dataclass(eq=False, slots=True, weakref_slot=True)
class Connecting:
    """Connections that are being opened to one replica."""

    turn: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(MOST_OPENING))
    failure: NotConnectedError | None = None
    """Of the attempt that ended last; `None`: it came about."""


class Pool:
    """Connections by attempt. One is never used for another attempt than it was opened for."""

    def __init__(self, doors: Doors, connect: float = CONNECT_SECONDS) -> None:
        """`connect`: so many seconds a connection may take."""
        self._doors = doors
        self._connect = connect
        self._idle: defaultdict[str, list[Exchange]] = defaultdict(list)
        self._sweeping: asyncio.TimerHandle | None = None
        self._connecting: WeakValueDictionary[tuple[str, int], Connecting] = WeakValueDictionary()

    def way(self, replica: ReadyReplica) -> Way:
        """Return the way to a replica; raises `NotConnectedError`."""
        try:
            return self._doors.way(replica.host, replica.port, replica.token, replica.door)
        except UnknownKeyError as error:
            raise NotConnectedError(str(error)) from error

    def idle(self, replica: ReadyReplica) -> Exchange | None:
        """Take a connection that waits, if there is one."""
        waiting = self._idle.get(replica.token)
        while waiting:
            exchange = waiting.pop()
            if not waiting:
                del self._idle[replica.token]
            if exchange.is_free:
                return exchange
        return None

    async def open(self, way: Way) -> Exchange:
        """Open a connection, once it is its turn; raises `NotConnectedError`.

        Who has waited for a turn does not try where the last one has just failed: at a dead replica all know it then.
        """
        connecting = self._connecting.setdefault((way.host, way.port), Connecting())
        has_to_wait = connecting.turn.locked()
        async with connecting.turn:
            if has_to_wait and connecting.failure is not None:
                raise NotConnectedError(str(connecting.failure)) from connecting.failure
            try:
                exchange = await self._open(way)
            except NotConnectedError as error:
                connecting.failure = error
                raise
            connecting.failure = None
            return exchange

    async def _open(self, way: Way) -> Exchange:
        connecting = asyncio.get_running_loop().create_connection(
            partial(Exchange, _own_lines(way.secret)), way.host, way.port, ssl=way.http, server_hostname=way.name
        )
        try:
            async with asyncio.timeout(self._connect):
                transport, exchange = await connecting
        except TimeoutError as error:
            raise NotConnectedError(f"no connection within {self._connect:g} s") from error
        except (OSError, ValueError) as error:
            raise NotConnectedError(str(error) or type(error).__name__) from error
        notice_death(transport.get_extra_info("socket"))
        return exchange

    def keep(self, replica: ReadyReplica, exchange: Exchange) -> None:
        """Take a connection back, for the next request or to close it."""
        if not exchange.is_free or len(self._idle.get(replica.token, ())) >= MOST_IDLE:
            exchange.abort()
            return
        self._idle[replica.token].append(exchange)
        if self._sweeping is None:
            self._sweeping = asyncio.get_running_loop().call_later(SWEEP_SECONDS, self._sweep)

    def drop(self, tokens: Collection[str]) -> None:
        """Close those that wait for these attempts: nobody is to ask them any more."""
        for token in tokens:
            for exchange in self._idle.pop(token, ()):
                exchange.abort()

    def close(self) -> None:
        """Close those that wait."""
        self.drop(tuple(self._idle))
        if self._sweeping is not None:
            self._sweeping.cancel()
            self._sweeping = None

    def _sweep(self) -> None:
        for token, waiting in list(self._idle.items()):
            while waiting and waiting[0].has_been_idle(IDLE_SECONDS):  # who waits longest stands first
                waiting.pop(0).abort()
            if not waiting:
                del self._idle[token]
        self._sweeping = asyncio.get_running_loop().call_later(SWEEP_SECONDS, self._sweep) if self._idle else None


def _own_lines(secret: str | None) -> bytes:
    """Write what each request on a connection says first: of the engine, and to it."""
    shown = [f"{name}: {value}".encode() for name, value in authorization(secret).items()]
    return b"\r\n".join([b"host: engine", b"accept-encoding: identity", *shown])
