"""Connections to engines, kept for the next request: a handshake costs more than all else of a request."""

from __future__ import annotations

import asyncio
from collections import defaultdict

from api.contract.asking import CONNECT_SECONDS, NotConnectedError
from api.contract.doors import Doors, UnknownKeyError, Way
from api.gateway.exchange import Exchange
from api.web.replicas import ReadyReplica

IDLE_SECONDS = 4.0
"""uvicorn, which vLLM is served by, closes a connection that has been idle for 5 s."""
MOST_IDLE = 64
"""For each replica."""


class Pool:
    """Connections by attempt. One is never used for another attempt than it was opened for."""

    def __init__(self, doors: Doors) -> None:
        self._doors = doors
        self._idle: defaultdict[str, list[Exchange]] = defaultdict(list)

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
            if exchange.is_free:
                return exchange
        return None

    async def open(self, way: Way) -> Exchange:
        """Open a connection; raises `NotConnectedError`."""
        connecting = asyncio.get_running_loop().create_connection(
            Exchange, way.host, way.port, ssl=way.http, server_hostname=way.name
        )
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                _, exchange = await connecting
        except TimeoutError as error:
            raise NotConnectedError(f"no connection within {CONNECT_SECONDS:g} s") from error
        except (OSError, ValueError) as error:
            raise NotConnectedError(str(error) or type(error).__name__) from error
        return exchange

    def keep(self, replica: ReadyReplica, exchange: Exchange) -> None:
        """Take a connection back, for the next request or to close it."""
        waiting = self._idle[replica.token]
        if not exchange.is_free or len(waiting) >= MOST_IDLE:
            exchange.abort()
            return
        waiting.append(exchange)
        asyncio.get_running_loop().call_later(IDLE_SECONDS, self._expire, replica.token, exchange)

    def close(self) -> None:
        """Close those that wait."""
        for waiting in self._idle.values():
            for exchange in waiting:
                exchange.abort()
        self._idle.clear()

    def _expire(self, token: str, exchange: Exchange) -> None:
        waiting = self._idle.get(token)
        if waiting is not None and exchange in waiting and exchange.has_been_idle(IDLE_SECONDS):
            waiting.remove(exchange)
            exchange.abort()
            if not waiting:
                del self._idle[token]
