"""Migrations expand first: what a release's programs say to their database goes on working after the next migration,
and after going back.

`tests/releases/SCHEMA/statements.sql` holds what the programs of that schema send. A migration that would break them
has to be split: one release that adds what is new, a later one that removes what is old.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from backends import Backend

from api.contract.database import Database, head, migrate, revisions

RELEASES = Path(__file__).parents[1] / "releases"
FIRST = "0002"
"""The first schema after which migrations only expanded."""
SINCE = sorted(folder.name for folder in RELEASES.iterdir())
BEFORE = sorted(revision for revision in revisions() if FIRST <= revision < head())


def statements(revision: str) -> list[str]:
    """Return what the programs of a schema send."""
    file = RELEASES / revision / "statements.sql"
    assert file.exists(), f"write down what the programs of the schema {revision} send to the database: {file}"
    lines = [line for line in file.read_text().splitlines() if not line.startswith("--")]
    return [statement.strip() for statement in "\n".join(lines).split(";\n") if statement.strip(" ;\n")]


async def migrated(backend: Backend, revision: str) -> None:
    database = Database(backend.url)
    try:
        await migrate(database, revision)
    finally:
        await database.close()


def test_there_is_something_before() -> None:
    assert BEFORE


@pytest.mark.parametrize("revision", SINCE)
async def test_programs_of_an_older_schema_go_on(empty_backend: Backend, revision: str) -> None:
    sent = statements(revision)
    await migrated(empty_backend, revision)
    then = await empty_backend.rows(sent)
    assert sum(statement.startswith("SELECT") and rows != [] for statement, rows in zip(sent, then, strict=True)) > 5
    await migrated(empty_backend, "base")
    await migrated(empty_backend, "head")
    assert await empty_backend.rows(sent) == then


@pytest.mark.parametrize("revision", BEFORE)
async def test_a_migration_amid_their_work(empty_backend: Backend, revision: str) -> None:
    sent = statements(revision)
    await migrated(empty_backend, revision)
    with empty_backend.copy() as backend:
        then = await backend.rows(sent)
    for step in range(1, len(sent), 10):
        with empty_backend.copy() as backend:
            before = await backend.rows(sent[:step])
            await migrated(backend, "head")
            assert before + await backend.rows(sent[step:]) == then


@pytest.mark.parametrize("revision", BEFORE)
async def test_going_back_amid_their_work(empty_backend: Backend, revision: str) -> None:
    sent = statements(revision)
    await migrated(empty_backend, revision)
    with empty_backend.copy() as backend:
        then = await backend.rows(sent)
    await migrated(empty_backend, "head")
    for step in range(5, len(sent), 20):
        with empty_backend.copy() as backend:
            before = await backend.rows(sent[:step])
            await migrated(backend, revision)
            assert before + await backend.rows(sent[step:]) == then
