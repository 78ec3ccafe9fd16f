from __future__ import annotations

import asyncio
import functools
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from api_servers import ENGINE_PROGRAM, LiveServer, RunningEngine, start_server, wait_for
from api_world import KEY, World, new_app, settings_for
from backends import Backend

import api.gateway.data_plane
import api.gateway.queue
from api.contract.database import Database, migrate
from api.contract.doorless import secret
from api.gateway.queue import Queues


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated database, made once and copied for each test."""
    path = tmp_path_factory.mktemp("template") / "ai-factory.db"

    async def make() -> None:
        database = Database(f"sqlite:///{path}")
        await migrate(database)
        await database.close()

    asyncio.run(make())
    return path


@pytest.fixture
def folder(template: Path, tmp_path: Path) -> Path:
    """A folder with a state_dir that holds a fresh database, and a run_dir."""
    (tmp_path / "state").mkdir()
    (tmp_path / "run").mkdir()
    shutil.copy(template, tmp_path / "state/ai-factory.db")
    return tmp_path


@pytest.fixture
def waiting(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """Say how many wait. Nobody looks by himself here: what wakes those who wait is what the gateway is told."""
    monkeypatch.setattr(api.gateway.queue, "LOOK_SECONDS", 3600.0)
    made: list[Queues] = []

    def make(length: int, seconds: float) -> Queues:
        made.append(Queues(length, seconds))
        return made[-1]

    monkeypatch.setattr(api.gateway.data_plane, "Queues", make)
    return lambda: sum(len(places) for queues in made for places in queues._waiting.values())


@pytest.fixture
async def world(folder: Path) -> AsyncIterator[World]:
    settings = settings_for(folder)
    database = Database(settings.database_url)
    world = World(settings, database, new_app(settings, database))
    async with world.running():
        yield world
    await database.close()


@pytest.fixture(scope="session")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., RunningEngine]]:
    """Start (once for the same flags) the dummy engine under the secret of a token of its own."""
    folder = tmp_path_factory.mktemp("engines")
    processes: list[subprocess.Popen[bytes]] = []

    @functools.cache
    def start(*flags: str) -> RunningEngine:
        number = len(processes)
        token = f"af-inst22-engine{number}-0-1"
        log = folder / f"{number}.log"
        with log.open("w") as output:
            processes.append(
                subprocess.Popen(
                    [sys.executable, str(ENGINE_PROGRAM), "--port", "0", *flags],
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env={**os.environ, "VLLM_API_KEY": secret(KEY, token)},
                )
            )
        port = wait_for(r"Starting vLLM server on http://\S+:(\d+)", log, processes[-1])
        return RunningEngine(port, token)

    yield start
    for process in processes:
        process.kill()
        process.wait()


@pytest.fixture(scope="session")
def live(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """The program itself, in a process of its own."""
    folder = tmp_path_factory.mktemp("live")
    (folder / "state").mkdir()
    (folder / "run").mkdir()
    shutil.copy(template, folder / "state/ai-factory.db")
    server = start_server(folder)
    yield server
    server.process.terminate()
    assert server.process.wait(60) == 0


@pytest.fixture
async def anywhere(backend: Backend, database: Database, tmp_path: Path) -> AsyncIterator[World]:
    """The API over SQLite, and over PostgreSQL."""
    settings = settings_for(tmp_path, database_url=backend.url)
    world = World(settings, database, new_app(settings, database))
    async with world.running():
        yield world
