"""The grounds on which store and lease are tried."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from backends import MEMORY, Backend

from api.contract.database import Database
from api.contract.recipes.book import Library
from api.contract.settings import SlurmSettings
from controller.store import SqlStore
from controller.wanted import Wanted
from tests.contract.grounds import RECIPE, Ground, MemoryGround, SqlGround


@pytest.fixture
async def ground(backend: Backend, tmp_path: Path) -> AsyncIterator[Ground]:
    """A ground with the service `one`."""
    if backend.kind == MEMORY:
        memory = MemoryGround()
        await memory.insert("one")
        yield memory
        return
    recipe = tmp_path / "recipes" / "simple" / "tool.yaml"
    recipe.parent.mkdir(parents=True, exist_ok=True)
    recipe.write_text(RECIPE % "first")
    database = Database(backend.url)
    sql = SqlGround(
        backend, database, SqlStore(database, Wanted("x", Library((recipe.parents[1],), {}), SlurmSettings()))
    )
    await sql.insert("one")
    yield sql
    await database.close()
