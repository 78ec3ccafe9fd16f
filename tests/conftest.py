"""Databases for tests: each test gets one of its own, already migrated, on SQLite and on PostgreSQL."""

from __future__ import annotations

import asyncio
import itertools
import os
import shutil
import signal
from collections.abc import AsyncIterator, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from backends import MEMORY, POSTGRESQL, SQLITE, Backend
from postgres_server import NoServerError, PostgresServer

from api.contract.database import Database, migrate
from tests.examples import register
from tests.slurm_cluster import apptainer as apptainer
from tests.slurm_cluster import other_slurm_conf as other_slurm_conf
from tests.slurm_cluster import slurm_cluster as slurm_cluster

# A suite that was started in the background is told to ignore these, and so would be all that it starts.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

register()

_numbers = itertools.count()


def _in_own_loop(work: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine where no test's event loop is touched."""
    with ThreadPoolExecutor(1) as pool:
        pool.submit(asyncio.run, work).result()


async def _migrated(url: str) -> None:
    database = Database(url)
    try:
        await migrate(database)
    finally:
        await database.close()


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """A server of this run's own. Without the packages its tests are skipped, in CI they fail."""
    try:
        server = PostgresServer()
    except NoServerError as error:
        if os.environ.get("CI"):
            pytest.fail(str(error))
        pytest.skip(str(error))
    try:
        server.start()
        yield server
    finally:
        server.remove()


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("template") / "ai-factory.db"
    _in_own_loop(_migrated(f"sqlite:///{path}"))
    return path


@pytest.fixture(scope="session")
def postgres_template(postgres_server: PostgresServer) -> str:
    postgres_server.psql("CREATE DATABASE template_ai_factory")
    _in_own_loop(_migrated(postgres_server.url("template_ai_factory")))
    return "template_ai_factory"


def _backend(kind: str, request: pytest.FixtureRequest, template: str | None) -> Iterator[Backend]:
    if kind == MEMORY:
        yield Backend(kind, "", "")
        return
    if kind == "sqlite":
        path = request.getfixturevalue("tmp_path") / "ai-factory.db"
        if template is not None:
            shutil.copyfile(request.getfixturevalue("sqlite_template"), path)
        yield Backend(kind, f"sqlite:///{path}", str(path))
        return
    server: PostgresServer = request.getfixturevalue("postgres_server")
    name = f"test_{next(_numbers)}"
    source = f" TEMPLATE {request.getfixturevalue('postgres_template')}" if template is not None else ""
    server.psql(f"CREATE DATABASE {name}{source}")
    yield Backend(kind, server.url(name), name, server)
    server.psql(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(params=[SQLITE, POSTGRESQL])
def backend(request: pytest.FixtureRequest) -> Iterator[Backend]:
    """A migrated database of this test's own."""
    yield from _backend(request.param, request, "migrated")


@pytest.fixture(params=[SQLITE, POSTGRESQL])
def empty_backend(request: pytest.FixtureRequest) -> Iterator[Backend]:
    """A database without tables."""
    yield from _backend(request.param, request, None)


@pytest.fixture
async def database(backend: Backend) -> AsyncIterator[Database]:
    """The test's database as the programs open it."""
    database = Database(backend.url)
    yield database
    await database.close()
