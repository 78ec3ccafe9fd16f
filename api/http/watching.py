"""The changes of services as watchers are sent them, rendered once for all who watch in this process.

One task follows the change feed, reads the services that it names, and keeps the newest events in a bounded list. A
watcher holds no more than the number it has come to: it takes what is newer from the list, and asks the database only
where the list does not reach back so far, when it comes back or was slow. So a slow one costs no memory and loses
nothing: it is told of the latest state of each service instead of every step.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Sequence
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import BindParameter, Connection, Row, bindparam

from api.contract.database import Database
from api.contract.feed import Position, read_position
from api.contract.tables import Service, ServiceChange
from api.http.services import VIEW
from api.http.wire import service_response
from api.web import sse
from api.web.bell import Bell, rung
from api.web.belonging import Access, Belonging, may_see
from api.web.change_feed import RETRY_SECONDS, ChangeFeed
from api.web.errors import UnavailableError
from api.web.principal import Principal
from api.web.recent import Recent
from api.web.responses import JsonResponse
from api.web.transactions import reading

HEAVIEST = 16 * 1024 * 1024
"""Bytes of events that are kept."""
CATCHING_UP = 2
"""So many watchers read the database at once."""
LAST_NUMBER = 2**62

log = logging.getLogger(__name__)

_SINCE: BindParameter[int] = bindparam("since")
_UNTIL: BindParameter[int] = bindparam("until")
_CHANGED = (
    VIEW.add_columns(ServiceChange.seq, Service.change_seq)
    .join(ServiceChange, ServiceChange.service_id == Service.id)
    .where(ServiceChange.seq > _SINCE, ServiceChange.seq <= _UNTIL)
    .order_by(ServiceChange.seq)
)
RESET = sse.event("reset")
"""Forget what you know: all there is follows."""


class ChangeEvent(NamedTuple):
    """One change, as it is sent."""

    seq: int
    service_id: str
    text: bytes
    belonging: Belonging


class ServiceWatch:
    """Follows the feed from the first watcher on until it is closed."""

    def __init__(self, database: Database, feed: ChangeFeed, default: Access, gateway: str) -> None:
        """`default` is the access of services that say nothing of it; `gateway`: its URL."""
        self._database = database
        self._default = default
        self._feed = feed
        self._gateway = gateway
        self._recent: Recent[ChangeEvent] = Recent(weigh=lambda event: len(event.text), heaviest=HEAVIEST)
        self._bell = Bell()
        self._following: asyncio.Task[None] | None = None
        self._catching_up = asyncio.Semaphore(CATCHING_UP)
        self.is_closed = False

    async def begin(self) -> int:
        """Return the number of the last change rendered, beginning to follow the feed on the first call.

        Raises `UnavailableError` if the database does not answer then.
        """
        position = await self._feed.begin()
        if self._following is None:
            self._recent.begin(position)
            self._following = asyncio.create_task(self._follow())
        return self._recent.position

    async def close(self) -> None:
        """End all watches, and stop following."""
        self.is_closed = True
        self._bell.ring()
        if self._following is not None:
            self._following.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._following

    async def watch(
        self, principal: Principal, after: int | None, service_id: str | None = None
    ) -> AsyncIterator[bytes]:
        """Yield what is sent to a watcher that knows all up to `after` (`None`: up to now), until this is closed.

        Of services that the watcher does not see, nothing is.
        """
        now = await self.begin()
        here = now if after is None else after
        yield sse.head("watching", here)
        while not self.is_closed:
            ring = self._bell.next
            events = self._recent.since(here)
            if events is None:
                try:
                    is_reset, events, reached = await self._catch_up(here)
                except UnavailableError:
                    await rung(ring, RETRY_SECONDS)
                    continue
                if is_reset:
                    yield RESET
                here = reached
            elif events:
                here = events[-1].seq
            elif not await rung(ring, sse.HEARTBEAT_SECONDS):
                yield sse.HEARTBEAT
                continue
            wanted = [
                event.text
                for event in events
                if service_id in (None, event.service_id) and may_see(principal, event.belonging)
            ]
            if wanted:
                yield b"".join(wanted)

    async def _catch_up(self, position: int) -> tuple[bool, list[ChangeEvent], int]:
        """Read the changes after a position, or all there is if some of those can't be told any more."""
        async with self._catching_up:
            is_reset, now, rows = await reading(self._database, lambda connection: _all_since(connection, position))
        events = list(map(self._event, rows))
        return is_reset, events, max([now.seq, *(event.seq for event in events[-1:])])

    async def _follow(self) -> None:
        while not self._feed.is_closed:
            ring = self._feed.bell.next
            try:
                if self._feed.position == self._recent.position:
                    await ring.wait()
                else:
                    await self._render()
            except UnavailableError as error:
                log.warning("changed services can't be read: %s", error)
                await asyncio.sleep(RETRY_SECONDS)
            except Exception:
                # Watchers hang on this task: it outlives whatever is wrong with one reading.
                log.exception("changed services can't be read")
                await asyncio.sleep(RETRY_SECONDS)

    async def _render(self) -> None:
        """Render what the feed has told of since; what changed once more meanwhile comes under its later number."""
        here, until = self._recent.position, self._feed.position
        if self._feed.since(here) is None:
            self._recent.begin(until)
        else:
            keys = {"since": here, "until": until}
            rows = await reading(self._database, lambda connection: connection.execute(_CHANGED, keys).all())
            for row in rows:
                self._recent.add(self._event(row))
            self._recent.position = until
        self._bell.ring()

    def _event(self, row: Row[Any]) -> ChangeEvent:
        """Write a change as it is sent: the service as it is now."""
        kind = "changed"
        if row.deletion_requested_at is not None:
            kind = "deleted"
        elif row.version == 1 and row.change_seq == row.seq:
            kind = "created"
        content = JsonResponse(None).render(
            msgspec.to_builtins(service_response(row, self._gateway)), "application/json"
        )
        return ChangeEvent(row.seq, row.id, sse.event(kind, content, row.seq), Belonging.of(row, self._default))


def _all_since(connection: Connection, position: int) -> tuple[bool, Position, Sequence[Row[Any]]]:
    """Read where the feed is and what changed after a position; everything (and say so) if that can't be told."""
    now = read_position(connection)
    is_reset = not now.tells_all_after(position)
    keys = {"since": 0 if is_reset else position, "until": LAST_NUMBER}
    return is_reset, now, connection.execute(_CHANGED, keys).all()
