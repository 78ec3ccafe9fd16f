"""The bench must not stand in the way of the controller that it runs in its own process."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

import aiosqlite

from bench.steady import declare


async def test_services_are_declared_while_the_controller_writes(tmp_path: Path) -> None:
    file = tmp_path / "ai-factory.db"
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("CREATE TABLE services (id TEXT, recipe_name TEXT, config TEXT)")
    async with aiosqlite.connect(file) as writing:
        await writing.execute("BEGIN IMMEDIATE")
        declaring = asyncio.create_task(declare(file, 3))
        await writing.execute(
            "INSERT INTO services VALUES ('one', 'simple/hello', '{}')"
        )  # a turn of the loop, and more
        await writing.commit()
        await asyncio.wait_for(declaring, 20)
        found = await writing.execute_fetchall("SELECT count(*) FROM services")
    assert [tuple(row) for row in found] == [(4,)]
