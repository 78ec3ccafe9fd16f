"""From SQLite to PostgreSQL: every row of one database into another that holds nothing yet."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Table, func, select, text

from api.contract.database import Database, migrate
from api.contract.tables import Base

AT_ONCE = 1000
"""Rows in one statement."""

TABLES: Sequence[Table] = Base.metadata.sorted_tables
"""Those that others refer to come first."""


async def transfer(source: Path, database: Database, *, installation: str) -> None:
    """Make the tables in an empty PostgreSQL database, and fill them from SQLite's file, of the newest schema."""
    old = Database(f"sqlite:///{source}")
    try:
        rows = await old.read(_rows)
    finally:
        await old.close()
    await migrate(database, installation=installation)
    try:
        async with database.write() as connection:
            await connection.run_sync(_fill, rows)
    except BaseException:
        await migrate(database, "base")
        raise


def _rows(connection: Connection) -> dict[str, list[dict[str, Any]]]:
    return {table.name: [dict(row) for row in connection.execute(select(table)).mappings()] for table in TABLES}


def _fill(connection: Connection, rows: dict[str, list[dict[str, Any]]]) -> None:
    """Write all rows as they are: no trigger counts a generation, or numbers a change, that was counted before."""
    for table in TABLES:
        connection.execute(text(f"ALTER TABLE {table.name} DISABLE TRIGGER USER"))
    for table in reversed(TABLES):
        connection.execute(table.delete())  # what the migrations have put there
    for table in TABLES:
        found = rows[table.name]
        for begin in range(0, len(found), AT_ONCE):
            connection.execute(table.insert(), found[begin : begin + AT_ONCE])
        _number_on(connection, table)
    for table in TABLES:
        connection.execute(text(f"ALTER TABLE {table.name} ENABLE TRIGGER USER"))


def _number_on(connection: Connection, table: Table) -> None:
    """Have the next row that the database itself numbers come after those that are there."""
    column = table.autoincrement_column
    if column is not None:
        highest = connection.execute(select(func.max(column))).scalar()
        if highest is not None:
            connection.execute(select(func.setval(func.pg_get_serial_sequence(table.name, column.name), highest)))
