"""The keys in the database: made, shown, revoked and rotated. A secret is given out once, and kept by nobody."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from sqlalchemy import Row, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from api.contract.database import Database
from api.contract.identity import new_id
from api.contract.tables import ApiKeyRow, KeyUseRow
from api.http.key_requests import KeyRequest
from api.web.key_limits import LIMITS
from api.web.key_secret import digest_of, new_secret, start_of
from api.web.transactions import reading, writing

_SHOWN = select(
    ApiKeyRow.id,
    ApiKeyRow.name,
    ApiKeyRow.owner,
    ApiKeyRow.start,
    ApiKeyRow.scopes,
    ApiKeyRow.models,
    ApiKeyRow.project,
    ApiKeyRow.recipes,
    *(getattr(ApiKeyRow, limit) for limit in LIMITS),
    ApiKeyRow.created_at,
    ApiKeyRow.expires_at,
    ApiKeyRow.revoked_at,
    KeyUseRow.last_used_at,
).outerjoin_from(ApiKeyRow, KeyUseRow)


class KeyTable:
    """Reads and writes the table."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def list_all(self) -> Sequence[Row[Any]]:
        """Return all keys, the newest last."""
        query = _SHOWN.order_by(ApiKeyRow.created_at, ApiKeyRow.id)
        return await reading(self._database, lambda connection: connection.execute(query).all())

    async def create(self, request: KeyRequest) -> tuple[Row[Any], str]:
        """Make a key; return it and its secret."""
        now = time.time()
        values = {
            "name": request.name,
            "owner": request.owner,
            "scopes": list(request.scopes),
            "models": None if request.models is None else list(request.models),
            "project": request.project,
            "recipes": None if request.recipes is None else list(request.recipes),
            **asdict(request.limits),
            "expires_at": None if request.life is None else now + request.life,
        }
        async with writing(self._database) as connection:
            return await _made(connection, values, now)

    async def revoke(self, key_id: str) -> Row[Any] | None:
        """Have a key end now; return it, or `None` if there is none."""
        async with writing(self._database) as connection:
            await _end(connection, key_id, time.time())
            return (await connection.execute(_SHOWN.where(ApiKeyRow.id == key_id))).one_or_none()

    async def rotate(self, key_id: str, grace: float) -> tuple[Row[Any], str] | None:
        """Make a key as good as this one and for as long as it was made for, and have this one end after a grace.

        Return the new one with its secret; `None` if this one is not there or has ended.
        """
        now = time.time()
        async with writing(self._database) as connection:
            old = (await connection.execute(_SHOWN.where(ApiKeyRow.id == key_id))).one_or_none()
            if old is None or has_ended(old, now):
                return None
            await _end(connection, key_id, now + grace)
            values = {
                "name": old.name,
                "owner": old.owner,
                "scopes": old.scopes,
                "models": old.models,
                "project": old.project,
                "recipes": old.recipes,
                **{limit: getattr(old, limit) for limit in LIMITS},
                "expires_at": None if old.expires_at is None else now + old.expires_at - old.created_at,
            }
            return await _made(connection, values, now)


def has_ended(row: Row[Any], now: float) -> bool:
    """Whether a key opens nothing any more."""
    return any(at is not None and at <= now for at in (row.expires_at, row.revoked_at))


async def _made(connection: AsyncConnection, values: dict[str, Any], now: float) -> tuple[Row[Any], str]:
    secret, key_id = new_secret(), new_id()
    own = {"id": key_id, "digest": digest_of(secret), "start": start_of(secret), "created_at": now}
    await connection.execute(insert(ApiKeyRow).values(**values, **own))
    return (await connection.execute(_SHOWN.where(ApiKeyRow.id == key_id))).one(), secret


async def _end(connection: AsyncConnection, key_id: str, at: float) -> None:
    """Have a key be revoked at a time, unless it is before."""
    later = func.coalesce(ApiKeyRow.revoked_at, at + 1) > at
    await connection.execute(update(ApiKeyRow).where(ApiKeyRow.id == key_id, later).values(revoked_at=at))
