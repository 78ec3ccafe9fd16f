"""Keeping the keys in memory as the database has them: looked at whenever the change feed rings, and now and then."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Row, func, select

from api.contract.database import Database
from api.contract.tables import ApiKeyRow
from api.web.bell import rung
from api.web.change_feed import ChangeFeed
from api.web.follower import Follower
from api.web.key_limits import LIMITS, KeyLimits
from api.web.keys import Keys, KnownKey
from api.web.principal import KeyScope, Principal
from api.web.transactions import reading

LOOK_SECONDS = 4.0
"""So often they are looked at without a ring."""

_STATE = select(func.count(), func.max(ApiKeyRow.change_seq)).select_from(ApiKeyRow)
"""Another after every change."""
_ALL = select(
    ApiKeyRow.id,
    ApiKeyRow.owner,
    ApiKeyRow.project,
    ApiKeyRow.digest,
    ApiKeyRow.scopes,
    ApiKeyRow.models,
    ApiKeyRow.recipes,
    *(getattr(ApiKeyRow, limit) for limit in LIMITS),
    ApiKeyRow.expires_at,
    ApiKeyRow.revoked_at,
)


class KeyReader(Follower):
    """Brings the keys to who checks them, from its beginning until it is closed."""

    def __init__(self, database: Database, feed: ChangeFeed, keys: Keys) -> None:
        super().__init__("the keys")
        self._database = database
        self._feed = feed
        self._keys = keys
        self._state: tuple[Any, ...] | None = None
        self._looking = asyncio.Lock()

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
            self.known.set()

    async def follow_once(self) -> None:
        """Bring what is there, and wait for the feed's next ring."""
        await self._feed.begin()
        ring = self._feed.bell.next
        await self.look()
        await rung(ring, LOOK_SECONDS)


def _changed(
    connection: Connection, known: tuple[Any, ...] | None
) -> tuple[tuple[Any, ...], Sequence[Row[Any]] | None]:
    """Return the state, and all keys unless it is the one that is known."""
    state = tuple(connection.execute(_STATE).one())
    return state, None if state == known else connection.execute(_ALL).all()


def _known(row: Row[Any]) -> KnownKey:
    """Read a key. A scope that this version does not know opens nothing."""
    scopes = frozenset(scope for scope in KeyScope if scope.value in row.scopes)
    principal = Principal(
        row.id,
        scopes,
        owner=row.owner,
        models=None if row.models is None else frozenset(row.models),
        project=row.project,
        recipes=None if row.recipes is None else frozenset(row.recipes),
        limits=KeyLimits(**{limit: _limit(getattr(row, limit)) for limit in LIMITS}),
    )
    return KnownKey(principal=principal, expires_at=row.expires_at, revoked_at=row.revoked_at)


def _limit(said: int | None) -> int | None:
    """Read a limit. Less than one, which SQL alone can say, is one."""
    return None if said is None else max(1, said)
