from __future__ import annotations

import asyncio
import functools
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from api_world import KEY, RECIPES, World, new_app, settings_for

from api.contract.database import Database, migrate
from api.contract.identity import secret

ROOT = Path(__file__).resolve().parents[2]
ENGINE_PROGRAM = ROOT / "recipes/inference/vllm_dummy_engine.py"


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
async def world(folder: Path) -> AsyncIterator[World]:
    settings = settings_for(folder)
    database = Database(settings.database_url)
    world = World(settings, database, new_app(settings, database))
    async with world.running():
        yield world
    await database.close()


@dataclass
class RunningEngine:
    port: int
    token: str


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
        port = _wait_for(r"Starting vLLM server on http://\S+:(\d+)", log, processes[-1])
        return RunningEngine(port, token)

    yield start
    for process in processes:
        process.kill()
        process.wait()


def _wait_for(pattern: str, log: Path, process: subprocess.Popen[Any]) -> int:
    """Wait until a log names a port."""
    while (match := re.search(pattern, log.read_text())) is None:
        assert process.poll() is None, log.read_text()
        time.sleep(0.02)
    return int(match[1])


@dataclass
class LiveServer:
    process: subprocess.Popen[bytes]
    port: int
    folder: Path
    errors: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


def start_server(folder: Path, **flags: str) -> LiveServer:
    """Start the program itself on a free port, and wait until it listens."""
    process, errors = spawn_server(folder, api__port="0", **flags)
    return LiveServer(process, _wait_for(r"listening on \S+ port (\d+)", errors, process), folder, errors)


def spawn_server(folder: Path, **flags: str) -> tuple[subprocess.Popen[bytes], Path]:
    values = {"state_dir": str(folder / "state"), "run_dir": str(folder / "run"), "recipes": str(RECIPES), **flags}
    errors = folder / f"stderr-{len(list(folder.glob('stderr-*')))}.log"
    with errors.open("w") as stderr:
        process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "api.http",
                *(word for name, value in values.items() for word in ("--set", f"{name.replace('__', '.')}={value}")),
            ],
            cwd=ROOT,
            stderr=stderr,
            env={"PATH": os.environ["PATH"], "HOME": str(folder)},
        )
    return process, errors


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
    assert server.process.wait(5) == 0
