"""What wakes services: whatever happens only says which of them to look at again."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable

from sqlalchemy.exc import SQLAlchemyError

from api.contract.job.token import parse_token
from controller.ports import Store
from controller.queue import KeyedQueue


class Waker:
    """Puts services into the queue."""

    def __init__(self, store: Store, queue: KeyedQueue) -> None:
        self._store = store
        self.queue = queue

    async def wake_all(self) -> None:
        """Look at every service."""
        self.queue.add_all(await self._store.keys())

    def wake_owners(self, tokens: Iterable[str]) -> None:
        """Look at the services of these tokens."""
        self.queue.add_all({token.service for text in tokens if (token := parse_token(text)) is not None})

    async def position(self) -> int:
        """Return how far the feed of changes has come."""
        position, _ = await self._store.changed(0)
        return position

    async def follow_changes(self, position: int) -> None:
        """Look at the services that people change, for ever. Losing a wake-up costs a look at everything, no more."""
        while True:
            with contextlib.suppress(SQLAlchemyError, OSError):
                async for _ in self._store.wakeups():
                    position, keys = await self._store.changed(position)
                    self.queue.add_all(keys)
            await asyncio.sleep(1.0)
