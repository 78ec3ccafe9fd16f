"""The feed's wake-up: soon after anybody's commit, and again after the database was away."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from backends import Backend, on_postgresql, on_sqlite
from sqlalchemy import update

import api.contract.feed
from api.contract.database import Database
from api.contract.feed import wakeups
from api.contract.tables import Service

INSERT = "INSERT INTO services (recipe_name) VALUES ('r')"
SOON = 20.0

Watch = Callable[[Database], "Watcher"]


class Watcher:
    """Follows the wake-ups of a database in the background."""

    def __init__(self, database: Database) -> None:
        self.count = 0
        self._woken = asyncio.Event()
        self._task = asyncio.create_task(self._follow(database))

    async def _follow(self, database: Database) -> None:
        async for _ in wakeups(database):
            self.count += 1
            self._woken.set()

    async def wakes(self, within: float = SOON) -> None:
        """Wait for the next wake-up."""
        self._woken.clear()
        async with asyncio.timeout(within):
            await self._woken.wait()

    async def calm(self) -> None:
        """Wait until what there was to wake for has been."""
        await asyncio.sleep(0.2)

    async def while_doing(self, work: Awaitable[Any], within: float = SOON) -> None:
        """Do something that must wake."""
        await self.calm()
        before = self.count
        await work
        async with asyncio.timeout(within):
            while self.count == before:
                await asyncio.sleep(0.01)

    async def stop(self) -> None:
        """End it, and raise what it ended with by itself."""
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task


@pytest.fixture
async def watcher(database: Database) -> AsyncIterator[Watcher]:
    watcher = Watcher(database)
    await watcher.wakes()
    yield watcher
    await watcher.stop()


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api.contract.feed, "RECONNECT_SECONDS", 0.1)


async def test_wakes_at_once_at_first(database: Database) -> None:
    async with asyncio.timeout(SOON):
        async for _ in wakeups(database):
            return


async def test_a_commit_of_another_connection_wakes(watcher: Watcher, backend: Backend) -> None:
    await watcher.while_doing(backend.run(INSERT))
    await watcher.while_doing(backend.run("UPDATE services SET replicas = 2"))
    await watcher.while_doing(backend.run("DELETE FROM services"))


async def test_a_commit_of_our_own_wakes(watcher: Watcher, backend: Backend, database: Database) -> None:
    await backend.run(INSERT)

    async def write() -> None:
        async with database.write() as connection:
            await connection.execute(update(Service).values(replicas=2))

    await watcher.while_doing(write())


async def test_a_commit_of_another_process_wakes(watcher: Watcher, backend: Backend) -> None:
    def other() -> None:
        if backend.server is not None:
            backend.server.psql(INSERT, backend.name)
            return
        script = "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); c.execute(sys.argv[2]); c.commit(); c.close()"
        subprocess.run([sys.executable, "-c", script, backend.name, INSERT], check=True, timeout=60)

    await watcher.while_doing(asyncio.to_thread(other))


async def test_an_endpoint_that_comes_or_goes_wakes(watcher: Watcher, backend: Backend) -> None:
    await backend.run("INSERT INTO services (id, recipe_name) VALUES ('one', 'r')")
    await watcher.while_doing(
        backend.run(
            "INSERT INTO endpoints (token, service_id, replica, models, host, port, state)"
            " VALUES ('t', 'one', 0, '[]', 'h', 80, 'ready')"
        )
    )
    await watcher.while_doing(backend.run("UPDATE endpoints SET state = 'unready'"))
    await watcher.while_doing(backend.run("DELETE FROM endpoints"))


async def test_what_is_rolled_back_wakes_nobody(watcher: Watcher, database: Database) -> None:
    await watcher.calm()
    before = watcher.count
    with pytest.raises(RuntimeError):
        async with database.write() as connection:
            await connection.exec_driver_sql(INSERT)
            raise RuntimeError("no")
    await watcher.calm()
    assert watcher.count == before


async def test_all_of_many_watchers_wake(database: Database, backend: Backend) -> None:
    watchers = [Watcher(database) for _ in range(3)]
    try:
        await watchers[0].calm()
        before = [watcher.count for watcher in watchers]
        await backend.run(INSERT)
        async with asyncio.timeout(SOON):
            while not all(watcher.count > count for watcher, count in zip(watchers, before, strict=True)):
                await asyncio.sleep(0.01)
    finally:
        for watcher in watchers:
            await watcher.stop()


@on_postgresql
async def test_the_server_may_restart(watcher: Watcher, backend: Backend) -> None:
    await asyncio.to_thread(backend.postgres.stop)
    await asyncio.sleep(0.3)
    before = watcher.count
    backend.postgres.start()
    async with asyncio.timeout(60):
        while watcher.count <= before:
            await asyncio.sleep(0.01)
    await asyncio.sleep(0.5)
    await watcher.while_doing(backend.run(INSERT))


@on_postgresql
async def test_a_broken_connection_wakes_for_what_was_missed(watcher: Watcher, backend: Backend) -> None:
    theirs = f"datname = '{backend.name}' AND query LIKE 'LISTEN%'"
    kill = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {theirs}"
    await watcher.while_doing(backend.run(kill))
    await watcher.while_doing(backend.run(INSERT))


@on_postgresql
async def test_a_connection_that_breaks_at_listening_is_made_again(
    backend: Backend, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    listen, breaks = asyncpg.Connection.add_listener, [asyncpg.ConnectionDoesNotExistError, asyncpg.InterfaceError]

    async def broken(connection: Any, *arguments: Any) -> None:
        if breaks:
            raise breaks.pop()("connection was closed in the middle of operation")
        await listen(connection, *arguments)

    monkeypatch.setattr(asyncpg.Connection, "add_listener", broken)
    watcher = Watcher(database)
    try:
        await watcher.wakes()
        await watcher.while_doing(backend.run(INSERT))
    finally:
        await watcher.stop()


@on_postgresql
async def test_every_option_of_the_url_counts(backend: Backend) -> None:
    database = Database(f"{backend.url}&ssl=disable&prepared_statement_cache_size=10")
    watcher = Watcher(database)
    try:
        await watcher.wakes()
        await asyncio.sleep(0.4)
        assert watcher.count == 1, "it was never connected"
        await watcher.while_doing(backend.run(INSERT))
    finally:
        await watcher.stop()
        await database.close()


class Wire:
    """A wire to the server that can be cut without either end being told, as a firewall does."""

    def __init__(self, server: Path) -> None:
        self._server = server
        self._writers: list[asyncio.StreamWriter] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self.connections = 0
        self._mute: set[asyncio.StreamWriter] = set()

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there = await asyncio.open_unix_connection(self._server)
        self.connections += 1
        self._writers += [writer, there[1]]
        for source, sink in ((reader, there[1]), (there[0], writer)):
            task = asyncio.create_task(self._carry(source, sink))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _carry(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while piece := await source.read(4096):
                if sink not in self._mute:
                    sink.write(piece)
                    await sink.drain()

    def cut(self) -> None:
        self._mute |= set(self._writers)

    async def close(self) -> None:
        for writer in self._writers:
            writer.close()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@on_postgresql
async def test_a_connection_that_silently_died_is_made_again(
    backend: Backend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api.contract.feed, "QUIET_SECONDS", 0.2)
    monkeypatch.setattr(api.contract.feed, "ANSWER_SECONDS", 2.0)
    wire = Wire(backend.postgres.folder / ".s.PGSQL.5432")
    proxy = await asyncio.start_unix_server(wire.connected, backend.postgres.folder / ".s.PGSQL.5999")
    database = Database(f"{backend.url}&port=5999")
    watcher = Watcher(database)
    try:
        await watcher.wakes()
        await asyncio.sleep(0.6)
        assert (watcher.count, wire.connections) == (1, 1), "quiet alone must not wake, nor connect again"
        wire.cut()
        await watcher.wakes()
        await watcher.wakes()
        await watcher.while_doing(backend.run(INSERT))
    finally:
        await watcher.stop()
        await database.close()
        proxy.close()
        await wire.close()


@on_sqlite
async def test_a_file_may_be_replaced(watcher: Watcher, backend: Backend, tmp_path: Path) -> None:
    backup = tmp_path / "backup.db"
    await backend.run(f"VACUUM INTO '{backup}'")

    async def restore() -> None:
        backup.replace(backend.name)

    await watcher.while_doing(restore())
    await watcher.while_doing(backend.run(INSERT))


@on_sqlite
async def test_a_file_may_be_away_for_a_while(watcher: Watcher, backend: Backend, tmp_path: Path) -> None:
    away = tmp_path / "away.db"
    Path(backend.name).rename(away)
    await asyncio.sleep(0.5)
    assert not Path(backend.name).exists(), "whoever watches must not make an empty file in its place"

    async def restore() -> None:
        away.rename(backend.name)

    await watcher.while_doing(restore())
    await watcher.while_doing(backend.run(INSERT))
