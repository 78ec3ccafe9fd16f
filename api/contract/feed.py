"""The change feed: which services changed since a number, and the wake-up that says *look again*.

Losing every wake-up costs seconds, never correctness: readers look again by themselves now and then.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NamedTuple

import asyncpg
from sqlalchemy import BindParameter, Connection, bindparam, func, select

from api.contract.database import Database, file_identity
from api.contract.tables import Feed, ServiceChange

CHANNEL = "ai_factory"
POLL_SECONDS = 0.05
RECONNECT_SECONDS = 2.0
QUIET_SECONDS = 30.0
"""After so long without a word from PostgreSQL it is asked whether it is there: a firewall may have forgotten us."""
ANSWER_SECONDS = 10.0
_LOST = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)
"""What a connection that can't be made, or has broken, raises (a TimeoutError is an OSError)."""

_AFTER: BindParameter[int] = bindparam("after")
_REMOVED = select(func.max(ServiceChange.seq)).where(ServiceChange.service_id == "").scalar_subquery()
_POSITION = select(Feed.seq, func.coalesce(_REMOVED, 0))
_CHANGES = (
    select(ServiceChange.seq, ServiceChange.service_id)
    .where(ServiceChange.seq > _AFTER, ServiceChange.service_id != "")
    .order_by(ServiceChange.seq)
)


class Position(NamedTuple):
    """Where the feed is."""

    seq: int
    """The last number given out."""
    removed: int
    """Up to this number services may have been removed for good, of which nobody is told."""

    def tells_all_after(self, seq: int) -> bool:
        """Whether who knows all up to a number can be told the rest; else only a look at everything helps.

        0 is who knows nothing. A number that was not given out yet is of a newer database than this one.
        """
        return seq <= self.seq and not 0 < seq < self.removed


class Change(NamedTuple):
    """That anything of a service changed: its row, its status or its endpoints."""

    seq: int
    service_id: str


def read_position(connection: Connection) -> Position:
    """Return where the feed is."""
    return Position(*connection.execute(_POSITION).one())


def read_changes(connection: Connection, after: int) -> tuple[Position, list[Change]]:
    """Return where the feed is, and the last change of each service that changed after a number, in their order."""
    now = read_position(connection)
    if now.seq == after:
        return now, []
    return now, [Change(*row) for row in connection.execute(_CHANGES, {"after": after})]


def wakeups(database: Database) -> AsyncIterator[None]:
    """Yield whenever something may have been committed by anybody; the first time at once. Never ends."""
    return _sqlite(Path(database.url.database or "")) if database.is_sqlite else _postgresql(database)


async def _sqlite(path: Path) -> AsyncIterator[None]:
    """Watch `PRAGMA data_version` on an own connection: it changes when another one commits (sqlite.org/pragma)."""
    connection: sqlite3.Connection | None = None
    file, last = None, None
    try:
        while True:
            try:
                if connection is not None and file_identity(path) != file:
                    connection.close()
                    connection = None
                if connection is None:
                    # Never makes the file: one that is away for a moment may be being restored.
                    file, last = file_identity(path), None
                    connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True, isolation_level=None)
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
    while True:
        woken = asyncio.Event()
        woken.set()
        try:
            connection = await asyncpg.connect(**_arguments(database))
        except _LOST:
            await asyncio.sleep(RECONNECT_SECONDS)
            yield None
            continue
        try:
            # Bound to this connection's event: a listener of a broken one wakes nobody.
            def notified(*_: Any, event: asyncio.Event = woken) -> None:
                event.set()

            connection.add_termination_listener(notified)
            await _listen(connection, notified)
            while not connection.is_closed():
                if await _is_woken(connection, woken):
                    woken.clear()
                    yield None
        finally:
            with contextlib.suppress(*_LOST):
                await connection.close(timeout=2)


def _arguments(database: Database) -> dict[str, Any]:
    """Connect as the engine does, so that every option of the URL counts here too."""
    _, arguments = database.engine.dialect.create_connect_args(database.url)
    mine = {name: value for name, value in arguments.items() if not name.startswith("prepared_statement")}
    return {"timeout": ANSWER_SECONDS, **mine}


async def _listen(connection: Any, notified: Any) -> None:
    """Listen; a connection that breaks at it is closed, and so connected again."""
    try:
        await connection.add_listener(CHANNEL, notified)
    except _LOST:
        connection.terminate()
        await asyncio.sleep(RECONNECT_SECONDS)


async def _is_woken(connection: Any, woken: asyncio.Event) -> bool:
    """Wait for a wake-up; after a while without one make sure that the connection still carries them."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(QUIET_SECONDS):
            await woken.wait()
        return True
    try:
        await connection.execute("SELECT 1", timeout=ANSWER_SECONDS)
    except _LOST:
        connection.terminate()
        return True
    return False
