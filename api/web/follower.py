"""Following the database in the background, whatever goes wrong with one look at it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from abc import ABC, abstractmethod

from api.web.errors import UnavailableError

RETRY_SECONDS = 1.0

log = logging.getLogger(__name__)


class Follower(ABC):
    """Looks again and again, from its beginning until it is closed."""

    def __init__(self, what: str) -> None:
        """`what` is looked at: for the log."""
        self._what = what
        self._following: asyncio.Task[None] | None = None
        self.known = asyncio.Event()
        """Set once it has been read."""

    @abstractmethod
    async def follow_once(self) -> None:
        """Look, and wait where there is nothing new. May raise `UnavailableError`."""

    def begin(self) -> None:
        """Begin to follow."""
        self._following = asyncio.create_task(self._follow())

    async def close(self) -> None:
        """Stop."""
        if self._following is not None:
            self._following.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._following

    async def _follow(self) -> None:
        while True:
            try:
                await self.follow_once()
            except UnavailableError as error:
                log.warning("%s can't be read: %s", self._what, error)
                await asyncio.sleep(RETRY_SECONDS)
            except Exception:
                # Others hang on this task: it outlives whatever is wrong with one look.
                log.exception("%s can't be read", self._what)
                await asyncio.sleep(RETRY_SECONDS)
