"""The changes of services, read once for all who watch them in this process.

One task reads the change feed and keeps the newest changes, as they are sent, in a bounded list. A watcher holds no
more than the number it has come to: it takes what is newer from the list, and asks the database only where the list
does not reach back so far, when it comes back or was slow. So a slow one costs no memory and loses nothing: it is
told of the latest state of each service instead of every step.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import AsyncIterator, Sequence
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import BindParameter, Connection, Row, bindparam, func, select

from api.contract.database import Database
from api.contract.feed import wakeups
from api.contract.tables import Feed, Service, ServiceChange
from api.http.services import VIEW
from api.http.wire import service_response
from api.web import sse
from api.web.errors import UnavailableError
from api.web.responses import JsonResponse
from api.web.transactions import reading

MOST_CHANGES = 2000
MOST_BYTES = 16 * 1024 * 1024
CATCHING_UP = 2
"""So many watchers read the database at once."""
RETRY_SECONDS = 1.0

log = logging.getLogger(__name__)

_SINCE: BindParameter[int] = bindparam("since")
_CHANGED = (
    VIEW.add_columns(ServiceChange.seq, Service.change_seq)
    .join(ServiceChange, ServiceChange.service_id == Service.id)
    .where(ServiceChange.seq > _SINCE)
    .order_by(ServiceChange.seq)
)
_REMOVED = select(func.max(ServiceChange.seq)).where(ServiceChange.service_id == "").scalar_subquery()
_POSITION = select(Feed.seq, func.coalesce(_REMOVED, 0).label("removed"))
RESET = sse.event("reset")
"""Forget what you know: all there is follows."""


class Change(NamedTuple):
    """One change, as it is sent."""

    seq: int
    service_id: str
    text: bytes


class Hub:
    """Reads the feed from the first watcher on until it is closed."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._recent: deque[Change] = deque()
        self._bytes = 0
        self._floor = 0
        """All changes after this one are in the list."""
        self._position = 0
        self._bell = asyncio.Event()
        self._reading: asyncio.Task[None] | None = None
        self._catching_up = asyncio.Semaphore(CATCHING_UP)
        self.is_closed = False

    async def position(self) -> int:
        """Return the number of the last change read, beginning to read on the first call.

        Raises `UnavailableError` if the database does not answer then.
        """
        if self._reading is None:
            found = (await reading(self._database, lambda connection: connection.execute(_POSITION).one())).seq
            if self._reading is None:
                self._position = self._floor = found
                self._reading = asyncio.create_task(self._read_on())
        return self._position

    async def close(self) -> None:
        """End all watches, and stop reading."""
        self.is_closed = True
        self._ring()
        if self._reading is not None:
            self._reading.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._reading

    async def watch(self, after: int | None, service_id: str | None = None) -> AsyncIterator[bytes]:
        """Yield what is sent to a watcher that knows all up to `after` (`None`: up to now), until the hub closes."""
        now = await self.position()
        here = now if after is None else after
        yield sse.head("watching", here)
        while not self.is_closed:
            bell = self._bell
            changes = self._since(here)
            if changes is None:
                try:
                    is_reset, changes, reached = await self._catch_up(here)
                except UnavailableError:
                    await self._rung(bell, RETRY_SECONDS)
                    continue
                if is_reset:
                    yield RESET
                here = reached
            elif changes:
                here = changes[-1].seq
            elif not await self._rung(bell, sse.HEARTBEAT_SECONDS):
                yield sse.HEARTBEAT
                continue
            wanted = [change.text for change in changes if service_id in (None, change.service_id)]
            if wanted:
                yield b"".join(wanted)

    async def changed(self, service_id: str, after: int, seconds: float) -> int | None:
        """Wait for a change of one service; return the number to go on from, or `None` when the time is over."""
        ends = asyncio.get_running_loop().time() + seconds
        while not self.is_closed:
            bell = self._bell
            changes = self._since(after)
            if changes is None or any(change.service_id == service_id for change in changes):
                return self._position
            after = changes[-1].seq if changes else after
            left = ends - asyncio.get_running_loop().time()
            if left <= 0 or not await self._rung(bell, left):
                return None
        return None

    def _since(self, position: int) -> list[Change] | None:
        """Return the changes after a position; `None` if the list does not hold all of them."""
        if not self._floor <= position <= self._position:
            return None
        found: list[Change] = []
        for change in reversed(self._recent):
            if change.seq <= position:
                break
            found.append(change)
        return found[::-1]

    async def _catch_up(self, position: int) -> tuple[bool, list[Change], int]:
        """Read the changes after a position, or all there is if some of those can't be told any more."""
        async with self._catching_up:
            is_reset, now, rows = await reading(self._database, lambda connection: _all_since(connection, position))
        changes = [_change(row) for row in rows]
        return is_reset, changes, max([now.seq, *(change.seq for change in changes[-1:])])

    async def _read_on(self) -> None:
        async for _ in wakeups(self._database):
            try:
                await self._read()
            except UnavailableError as error:
                log.warning("changes can't be read: %s", error)
                await asyncio.sleep(RETRY_SECONDS)
            except Exception:
                # Watchers hang on this task: it outlives whatever is wrong with one reading.
                log.exception("changes can't be read")
                await asyncio.sleep(RETRY_SECONDS)

    async def _read(self) -> None:
        position = self._position
        now, rows = await reading(self._database, lambda connection: _changed_since(connection, position))
        if now.seq == position:
            return
        # Something was removed of which nobody was told, or the database is an older one: whoever watches looks anew.
        if now.removed > self._position or now.seq < self._position:
            self._recent.clear()
            self._bytes, self._floor = 0, now.seq
        for row in rows:
            self._add(_change(row))
        self._position = max([now.seq, *(row.seq for row in rows[-1:])])
        self._ring()

    def _add(self, change: Change) -> None:
        self._recent.append(change)
        self._bytes += len(change.text)
        while len(self._recent) > MOST_CHANGES or self._bytes > MOST_BYTES:
            oldest = self._recent.popleft()
            self._floor = oldest.seq
            self._bytes -= len(oldest.text)

    def _ring(self) -> None:
        """Wake all who wait."""
        self._bell.set()
        self._bell = asyncio.Event()

    @staticmethod
    async def _rung(bell: asyncio.Event, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await bell.wait()
        except TimeoutError:
            return False
        return True


def _changed_since(connection: Connection, position: int) -> tuple[Row[Any], Sequence[Row[Any]]]:
    """Read where the feed is, and what changed after a position."""
    now = connection.execute(_POSITION).one()
    return now, () if now.seq == position else connection.execute(_CHANGED, {"since": position}).all()


def _all_since(connection: Connection, position: int) -> tuple[bool, Row[Any], Sequence[Row[Any]]]:
    """Read the same, or everything (and say so) if some of the changes can't be told any more."""
    now = connection.execute(_POSITION).one()
    is_reset = position > now.seq or 0 < position < now.removed
    return is_reset, now, connection.execute(_CHANGED, {"since": 0 if is_reset else position}).all()


def _change(row: Row[Any]) -> Change:
    """Write a change as it is sent: the service as it is now."""
    kind = "changed"
    if row.deletion_requested_at is not None:
        kind = "deleted"
    elif row.version == 1 and row.change_seq == row.seq:
        kind = "created"
    content = JsonResponse(None).render(msgspec.to_builtins(service_response(row)), "application/json")
    return Change(row.seq, row.id, sse.event(kind, content, row.seq))
