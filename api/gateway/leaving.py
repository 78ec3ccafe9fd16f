"""Noticing that a client has left, so that the engine stops working for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from litestar.types import Receive

from api.web.outlet import Outlet


class LeftError(Exception):
    """The client has left while an engine was at its request."""


class Leaving:
    """Waits for the client's leaving, once the request's body has been read."""

    def __init__(self, receive: Receive, outlet: Outlet | None = None) -> None:
        self._receive = receive
        self._outlet = outlet
        self._then: Callable[[], object] | None = None
        self._watching: asyncio.Task[None] | None = None
        self.is_gone = False
        """Whether it has left."""
        if outlet is None:
            self._watching = asyncio.create_task(self._watch())
        else:
            outlet.tell(self._leave)

    def then(self, act: Callable[[], object]) -> None:
        """Do this when it leaves, and nothing else any more; at once, if it has left."""
        self._then = act
        if self.is_gone:
            act()

    def close(self) -> None:
        """Wait no more."""
        if self._watching is not None:
            self._watching.cancel()
        if self._outlet is not None:
            self._outlet.tell(None)

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._leave()

    def _leave(self) -> None:
        self.is_gone = True
        if self._then is not None:
            self._then()


class Staying:
    """For who asks on a task of its own, which ends with its client."""

    is_gone: Final = False

    def then(self, act: Callable[[], object]) -> None:
        """Do nothing: the task's end ends what is done for it."""
