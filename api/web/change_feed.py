"""The change feed, read once for all in this process who want to know which services changed.

One task reads numbers and ids and keeps the newest. A reader holds no more than the number it has come to: it takes
what is newer from memory, reads the services that it names, and looks at everything where memory does not reach back.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging

from api.contract.database import Database
from api.contract.feed import Change, read_changes, read_position, wakeups
from api.web.bell import Bell, rung
from api.web.errors import UnavailableError
from api.web.recent import Recent
from api.web.transactions import reading

RETRY_SECONDS = 1.0

log = logging.getLogger(__name__)


class ChangeFeed:
    """Reads the feed from the first reader on until it is closed."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._recent: Recent[Change] = Recent()
        self._beginning = asyncio.Lock()
        self._reading: asyncio.Task[None] | None = None
        self.bell = Bell()
        """Rung when anything has changed, and when the feed is closed."""
        self.is_closed = False

    @property
    def position(self) -> int:
        """The number of the last change read."""
        return self._recent.position

    async def begin(self) -> int:
        """Return the position, beginning to read on the first call.

        Raises `UnavailableError` if the database does not answer then.
        """
        async with self._beginning:
            if self._reading is None:
                now = await reading(self._database, read_position)
                self._recent.begin(now.seq)
                self._reading = asyncio.create_task(self._read_on())
        return self.position

    async def close(self) -> None:
        """Wake all readers for the last time, and stop reading."""
        self.is_closed = True
        self.bell.ring()
        if self._reading is not None:
            self._reading.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._reading

    def since(self, position: int) -> list[Change] | None:
        """Return the changes after a position; `None` if not all of them are known: then look at everything."""
        return self._recent.since(position)

    async def changed(self, service_id: str, after: int, seconds: float) -> int | None:
        """Wait for a change of one service; return the number to go on from, or `None` when the time is over."""
        ends = asyncio.get_running_loop().time() + seconds
        while not self.is_closed:
            ring = self.bell.next
            changes = self.since(after)
            if changes is None or any(change.service_id == service_id for change in changes):
                return self.position
            after = changes[-1].seq if changes else after
            left = ends - asyncio.get_running_loop().time()
            if left <= 0 or not await rung(ring, left):
                return None
        return None

    async def _read_on(self) -> None:
        async for _ in wakeups(self._database):
            try:
                await self._read()
            except UnavailableError as error:
                log.warning("changes can't be read: %s", error)
                await asyncio.sleep(RETRY_SECONDS)
            except Exception:
                # Readers hang on this task: it outlives whatever is wrong with one reading.
                log.exception("changes can't be read")
                await asyncio.sleep(RETRY_SECONDS)

    async def _read(self) -> None:
        position = self.position
        now, changes = await reading(self._database, lambda connection: read_changes(connection, position))
        if now.seq == position:
            return
        # Something was removed of which nobody was told, or the database is an older one: all readers look anew.
        if not now.tells_all_after(position):
            self._recent.begin(now.seq)
        for change in changes:
            self._recent.add(change)
        self._recent.position = max([now.seq, *(change.seq for change in changes[-1:])])
        self.bell.ring()
