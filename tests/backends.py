"""A database of one test, as people meet it: by its URL and by the plain driver."""

from __future__ import annotations

import asyncio
import itertools
import shutil
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import asyncpg
import pytest
from postgres_server import PostgresServer

SQLITE = "sqlite"
MEMORY = "memory"
"""The simulation's database. It has neither URL nor SQL."""
POSTGRESQL = pytest.param("postgresql", marks=pytest.mark.postgres)

on_sqlite = pytest.mark.parametrize("backend", [SQLITE], indirect=True)
on_every_ground = pytest.mark.parametrize("backend", [SQLITE, POSTGRESQL, MEMORY], indirect=True)
on_postgresql = pytest.mark.parametrize("backend", [POSTGRESQL], indirect=True)


_copies = itertools.count()


class Refused(Exception):
    """The database refused a statement; its words are the message."""


@dataclass(frozen=True)
class Backend:
    """A database of one test, as its users know it: by URL and by the plain driver."""

    kind: str
    url: str
    name: str
    """The file of SQLite, the database's name on PostgreSQL."""
    server: PostgresServer | None = None

    @property
    def postgres(self) -> PostgresServer:
        """The server, for tests that are about PostgreSQL alone."""
        assert self.server is not None
        return self.server

    @contextmanager
    def copy(self) -> Iterator[Backend]:
        """Give another database that holds the same for now. Nobody may be connected to this one."""
        name = f"{self.name}_{next(_copies)}"
        if self.server is None:
            shutil.copyfile(self.name, name)
            yield Backend(self.kind, f"sqlite:///{name}", name)
            return
        self.server.psql(f"CREATE DATABASE {name} TEMPLATE {self.name}")
        yield Backend(self.kind, self.server.url(name), name, self.server)
        self.server.psql(f"DROP DATABASE {name} WITH (FORCE)")

    async def run(self, *statements: str) -> list[tuple[Any, ...]]:
        """Run statements as people type them, on a connection without our settings; return the rows of the last."""
        return (await self.rows(statements))[-1]

    async def rows(self, statements: Sequence[str]) -> list[list[tuple[Any, ...]]]:
        """Run statements, and return the rows of each."""
        try:
            if self.server is None:
                return await asyncio.to_thread(self._sqlite, statements)
            connection = await asyncpg.connect(self.url)
            try:
                return [[tuple(row) for row in await connection.fetch(statement)] for statement in statements]
            finally:
                await connection.close()
        except (sqlite3.Error, asyncpg.PostgresError) as error:
            raise Refused(str(error)) from error

    async def one(self, statement: str) -> tuple[Any, ...]:
        """Run a query that gives one row."""
        (row,) = await self.run(statement)
        return row

    def _sqlite(self, statements: Sequence[str]) -> list[list[tuple[Any, ...]]]:
        connection = sqlite3.connect(self.name, isolation_level=None)
        try:
            return [connection.execute(statement).fetchall() for statement in statements]
        finally:
            connection.close()
