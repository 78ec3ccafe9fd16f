"""The change feed's wake-up. It only says *look again*: who wakes asks one query on the indexed `change_seq`.

Losing every wake-up costs seconds, never correctness: readers look again by themselves now and then.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg

from api.contract.database import Database

CHANNEL = "ai_factory"
POLL_SECONDS = 0.05
RECONNECT_SECONDS = 2.0


def wakeups(database: Database) -> AsyncIterator[None]:
    """Yield whenever something may have been committed by anybody; the first time at once. Never ends."""
    return _sqlite(Path(database.url.database or "")) if database.is_sqlite else _postgresql(database)


async def _sqlite(path: Path) -> AsyncIterator[None]:
    """Watch `PRAGMA data_version` on an own connection: it changes when another one commits (sqlite.org/pragma)."""
    connection: sqlite3.Connection | None = None
    last: object = None
    try:
        while True:
            try:
                connection = connection or sqlite3.connect(path, isolation_level=None)
                version: object = connection.execute("PRAGMA data_version").fetchone()[0]
            except sqlite3.Error:
                if connection is not None:
                    connection.close()
                connection, version = None, None
            if version is None or version != last:
                last = version
                yield None
            await asyncio.sleep(POLL_SECONDS if version is not None else RECONNECT_SECONDS)
    finally:
        if connection is not None:
            connection.close()


async def _postgresql(database: Database) -> AsyncIterator[None]:
    """LISTEN on an own connection; connect again where it breaks, and wake then, for what was missed."""
    dsn = database.url.set(drivername="postgresql").render_as_string(hide_password=False)
    while True:
        woken = asyncio.Event()
        woken.set()
        try:
            connection = await asyncpg.connect(dsn, timeout=10)
        except (OSError, asyncpg.PostgresError, TimeoutError):
            await asyncio.sleep(RECONNECT_SECONDS)
            yield None
            continue
        try:
            # Bound to this connection's event: a listener of a broken one wakes nobody.
            def notified(*_: Any, event: asyncio.Event = woken) -> None:
                event.set()

            await connection.add_listener(CHANNEL, notified)
            connection.add_termination_listener(notified)
            while not connection.is_closed():
                await woken.wait()
                woken.clear()
                yield None
        finally:
            with contextlib.suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError):
                await connection.close(timeout=2)
