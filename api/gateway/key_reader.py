"""Keeping the keys in memory as the database has them: looked at whenever the change feed rings, and now and then."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Row, func, select

from api.contract.database import Database
from api.contract.tables import ApiKeyRow
from api.web.bell import rung
from api.web.change_feed import RETRY_SECONDS, ChangeFeed
from api.web.errors import UnavailableError
from api.web.keys import Keys, KnownKey
from api.web.principal import KeyScope, Principal
from api.web.transactions import reading

LOOK_SECONDS = 4.0
"""So often they are looked at without a ring."""

log = logging.getLogger(__name__)

_STATE = select(func.count(), func.max(ApiKeyRow.change_seq)).select_from(ApiKeyRow)
"""Another after every change."""
_ALL = select(
    ApiKeyRow.id, ApiKeyRow.digest, ApiKeyRow.scopes, ApiKeyRow.models, ApiKeyRow.expires_at, ApiKeyRow.revoked_at
)


class KeyReader:
    """Brings the keys to who checks them, from its beginning until it is closed."""

    def __init__(self, database: Database, feed: ChangeFeed, keys: Keys) -> None:
        self._database = database
        self._feed = feed
        self._keys = keys
        self._state: tuple[Any, ...] | None = None
        self._looking = asyncio.Lock()
        self._following: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Begin to follow."""
        self._following = asyncio.create_task(self._follow())

    async def close(self) -> None:
        """Stop."""
        if self._following is not None:
            self._following.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._following

    async def look(self) -> None:
        """Bring what is there now; raises `UnavailableError`."""
        async with self._looking:
            began = time.monotonic()
            known = self._state
            state, rows = await reading(self._database, lambda connection: _changed(connection, known))
            if rows is not None:
                self._keys.learn((row.digest, _known(row)) for row in rows)
                self._state = state
            self._keys.confirm(began)

    async def _follow(self) -> None:
        while not self._feed.is_closed:
            try:
                await self._feed.begin()
                ring = self._feed.bell.next
                await self.look()
                await rung(ring, LOOK_SECONDS)
            except UnavailableError as error:
                log.warning("the keys can't be read: %s", error)
                await asyncio.sleep(RETRY_SECONDS)
            except Exception:
                log.exception("the keys can't be read")
                await asyncio.sleep(RETRY_SECONDS)


def _changed(
    connection: Connection, known: tuple[Any, ...] | None
) -> tuple[tuple[Any, ...], Sequence[Row[Any]] | None]:
    """Return the state, and all keys unless it is the one that is known."""
    state = tuple(connection.execute(_STATE).one())
    return state, None if state == known else connection.execute(_ALL).all()


def _known(row: Row[Any]) -> KnownKey:
    """Read a key. A scope that this version does not know opens nothing."""
    scopes = frozenset(scope for scope in KeyScope if scope.value in row.scopes)
    models = None if row.models is None else frozenset(row.models)
    principal = Principal(row.id, scopes, models)
    return KnownKey(principal=principal, expires_at=row.expires_at, revoked_at=row.revoked_at)
