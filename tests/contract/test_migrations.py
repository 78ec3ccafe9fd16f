"""The schema: the same by migrations up, down and up again, and by the models; and nothing of a failed migration."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from backends import Backend, on_postgresql
from sqlalchemy import Connection, inspect
from sqlalchemy.exc import SQLAlchemyError

import api.contract.database
from api.contract.configuration import shared_folder
from api.contract.database import Database, SchemaError, head, migrate, revisions
from api.contract.tables import Base

ONLY_IN_MIGRATIONS = {"ck_services_config_is_object", "ck_services_id_characters"}
"""Checks that each database spells in its own way."""
STEPS = sorted(revisions())
NO_MODELS = {"alembic_version", "services_replaced"}
"""Tables that no program reads or writes."""


async def raw(backend: Backend) -> Any:
    """Return the whole schema as the database itself tells it: tables, indexes, triggers, functions."""
    if backend.server is not None:
        lines = backend.server.schema(backend.name).splitlines()
        return [line for line in lines if not line.startswith(("\\restrict", "\\unrestrict"))]
    return sorted(await backend.run("SELECT type, name, tbl_name, sql FROM sqlite_master"), key=str)


def described(connection: Connection) -> dict[str, Any]:
    """Describe all tables, in terms that the models know of."""
    found = inspect(connection)

    def indexes(table: str) -> dict[str, Any]:
        described = {}
        for index in found.get_indexes(table):
            options = index.get("dialect_options", {})
            where = options.get("sqlite_where", options.get("postgresql_where"))
            described[str(index["name"])] = (
                index["column_names"],
                bool(index["unique"]),
                str(where).strip("()") if where is not None else None,
            )
        return described

    def columns(table: str) -> dict[str, Any]:
        described = {}
        for column in found.get_columns(table):
            default = None if (table, column["name"]) == ("services", "id") else column["default"]
            if default is not None and "nextval" in default:
                default = "nextval"
            described[column["name"]] = (str(column["type"]), column["nullable"], default)
        return described

    return {
        table: {
            "columns": columns(table),
            "primary key": found.get_pk_constraint(table),
            "foreign keys": sorted(found.get_foreign_keys(table), key=lambda key: str(key["name"])),
            "unique": sorted(found.get_unique_constraints(table), key=lambda unique: str(unique["name"])),
            "checks": {
                str(check["name"]): check["sqltext"]
                for check in found.get_check_constraints(table)
                if check["name"] not in ONLY_IN_MIGRATIONS
            },
            "indexes": indexes(table),
        }
        for table in found.get_table_names()
        if table not in NO_MODELS
    }


async def describe(database: Database) -> dict[str, Any]:
    async with database.write() as connection:
        return await connection.run_sync(described)


async def test_up_and_up_down_up_are_the_same(empty_backend: Backend) -> None:
    database = Database(empty_backend.url)
    try:
        await migrate(database)
        up = await raw(empty_backend)
        await migrate(database, "base")
        assert await database.revision() is None
        left = await raw(empty_backend)
        await migrate(database)
        assert await raw(empty_backend) == up
        assert await database.revision() == head()
        assert len(str(left)) < len(str(up)) / 10
    finally:
        await database.close()


async def test_each_migration_is_undone_wholly(empty_backend: Backend) -> None:
    database = Database(empty_backend.url)
    schemas: list[Any] = []
    try:
        for step in (*STEPS, *reversed(STEPS[:-1])):
            await migrate(database, step)
            assert await database.revision() == step
            schemas.append(await raw(empty_backend))
    finally:
        await database.close()
    assert schemas == schemas[::-1]
    assert len({str(schema) for schema in schemas}) == len(STEPS)


async def test_down_leaves_nothing(empty_backend: Backend) -> None:
    database = Database(empty_backend.url)
    try:
        await migrate(database)
        await migrate(database, "base")
    finally:
        await database.close()
    if empty_backend.kind == "sqlite":
        tables = await empty_backend.run("SELECT name FROM sqlite_master WHERE name NOT LIKE 'sqlite_%' AND sql <> ''")
        assert tables == [("alembic_version",)]
        return
    objects = (
        "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace"
        " UNION ALL SELECT proname FROM pg_proc WHERE pronamespace = 'public'::regnamespace ORDER BY 1"
    )
    assert await empty_backend.run(objects) == [("alembic_version",), ("alembic_version_pkc",)]


async def test_the_models_say_the_same(empty_backend: Backend) -> None:
    database = Database(empty_backend.url)
    try:
        await migrate(database)
        migrated = await describe(database)
        await migrate(database, "base")
        async with database.write() as connection:
            await connection.run_sync(Base.metadata.create_all)
        modelled = await describe(database)
    finally:
        await database.close()
    assert migrated.keys() == modelled.keys()
    for table, parts in modelled.items():
        for part, value in parts.items():
            assert migrated[table][part] == value, f"{part} of {table}"


async def test_every_row_that_must_be_there_is(backend: Backend) -> None:
    assert await backend.one("SELECT singleton, seq FROM feed") == (1, 0)
    ((installation,),) = await backend.run("SELECT id FROM installation")
    assert len(installation) == 6
    assert installation.isalnum()


async def test_migrating_twice_changes_nothing(backend: Backend, database: Database) -> None:
    installation = await backend.run("SELECT id FROM installation")
    await migrate(database)
    assert await backend.run("SELECT id FROM installation") == installation


async def test_migrating_down_what_is_empty_does_nothing(empty_backend: Backend) -> None:
    database = Database(empty_backend.url)
    try:
        await migrate(database, "base")
        assert await database.revision() is None
    finally:
        await database.close()


async def test_programs_that_migrate_at_once_do_not_hurt_each_other(empty_backend: Backend) -> None:
    databases = [Database(empty_backend.url) for _ in range(4)]
    try:
        await asyncio.gather(*(migrate(database) for database in databases))
    finally:
        await asyncio.gather(*(database.close() for database in databases))
    assert len(await empty_backend.run("SELECT id FROM installation")) == 1


async def test_an_empty_database_gets_the_id_that_is_asked_for_and_no_other_one_does(empty_backend: Backend) -> None:
    database = Database(empty_backend.url)
    try:
        for _ in range(2):
            await migrate(database, installation="k3x9pq")
            assert await empty_backend.run("SELECT id FROM installation") == [("k3x9pq",)]
        with pytest.raises(SchemaError, match="is that of installation k3x9pq"):
            await migrate(database, installation="abc")
    finally:
        await database.close()
    assert await empty_backend.run("SELECT id FROM installation") == [("k3x9pq",)]


async def test_a_migration_that_fails_leaves_all_as_it_was(
    backend: Backend, database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    migrations = tmp_path / "migrations"
    shutil.copytree(shared_folder("migrations"), migrations)
    (migrations / "versions" / "9999_broken.py").write_text(
        "from alembic import op\n"
        "revision, down_revision, branch_labels, depends_on = '9999', '0014', None, None\n"
        "def upgrade():\n"
        "    op.execute('CREATE TABLE half (id INTEGER)')\n"
        "    op.execute('DROP TABLE events')\n"
        "    op.execute('DROP TABLE no_such_table')\n"
    )
    monkeypatch.setattr(api.contract.database, "shared_folder", lambda name: tmp_path / name)
    before = await raw(backend)
    with pytest.raises(SQLAlchemyError, match="no_such_table"):
        await migrate(database)
    assert await raw(backend) == before
    assert await database.revision() == "0014"


async def test_a_new_folder_is_made_private(tmp_path: Path) -> None:
    path = tmp_path / "state" / "ai-factory.db"
    database = Database(f"sqlite:///{path}")
    try:
        await migrate(database)
    finally:
        await database.close()
    assert path.parent.stat().st_mode & 0o777 == 0o700
    connection = sqlite3.connect(path)
    try:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    finally:
        connection.close()


@pytest.mark.parametrize(("values", "refused"), [
    ("'k1', NULL, NULL, NULL", True),
    ("'k1', 2.0, 'Stopped', NULL", True),
    ("'k1', 2.0, 'Stopped', 3.0", False),
    ("NULL, NULL, NULL, NULL", False),
], ids=["open", "ending", "gone", "without a door"])  # fmt: skip
async def test_there_is_no_way_back_while_jobs_have_doors(
    backend: Backend, database: Database, values: str, refused: bool
) -> None:
    """An older version would ask them in plain HTTP, and take their silence for death."""
    await backend.run(
        "INSERT INTO services (id, name, recipe_name) VALUES ('one', 'chat', 'r')",
        "INSERT INTO attempts (token, service_id, replica, incarnation, lane, generation, digest, failures, intent_at,"
        f" message, door, closed_at, outcome, gone_at) VALUES ('t', 'one', 0, 1, 'main', 1, 'd', 0, 1.0, '', {values})",
    )
    if refused:
        with pytest.raises(SchemaError, match=r"Jobs of chat have a door.*ai-factory services stop NAME"):
            await migrate(database, "0005")
    else:
        await migrate(database, "0005")
    assert await database.revision() == ("0014" if refused else "0005")


@on_postgresql
async def test_rights_to_a_view_outlive_its_change(backend: Backend, database: Database) -> None:
    await backend.run("GRANT SELECT ON service_overview TO PUBLIC")
    query = "SELECT relacl::text FROM pg_class WHERE relname = 'service_overview'"
    before = await backend.one(query)
    for revision in ("0005", "head"):
        await migrate(database, revision)
        assert await backend.one(query) == before
