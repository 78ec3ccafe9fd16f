"""Noticing that a client has left, so that the engine stops working for it."""

from __future__ import annotations

import asyncio

from litestar.types import Receive

from api.gateway.exchange import Exchange


class Leaving:
    """Waits for the client's leaving, once the request's body has been read."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._exchange: Exchange | None = None
        self._watching = asyncio.create_task(self._watch())
        self.is_gone = False
        """Whether it has left."""

    def ends(self, exchange: Exchange) -> None:
        """Let its leaving end this exchange."""
        self._exchange = exchange
        if self.is_gone:
            exchange.abort()

    def close(self) -> None:
        """Wait no more."""
        self._watching.cancel()

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.is_gone = True
        if self._exchange is not None:
            self._exchange.abort()
