"""Alembic's entry: from the program with its own connection, or from the `alembic` command by the settings."""

from __future__ import annotations

import asyncio

from alembic import context
from sqlalchemy import Connection

from api.contract.configuration import load
from api.contract.database import Database
from api.contract.tables import Base


def run(connection: Connection) -> None:
    """Run the migrations on this connection, inside its transaction."""
    context.configure(connection=connection, target_metadata=Base.metadata, render_as_batch=True)
    with context.begin_transaction():
        context.run_migrations()


async def run_by_settings() -> None:
    """Open the configured database and run the migrations on it."""
    database = Database(load().database_url)
    async with database.write() as connection:
        await connection.run_sync(run)
    await database.close()


given: Connection | None = context.config.attributes.get("connection")
if given is not None:
    run(given)
else:
    asyncio.run(run_by_settings())
