"""A fresh job folder for each test, and the wrapper's bundle for all of them."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from controller.bundle import bundle, file_name

from .doors import ENGINE, SOCKET, Start, door
from .jobs import Job


@pytest.fixture(scope="session")
def wrapper(tmp_path_factory: pytest.TempPathFactory) -> Path:
    content = bundle()
    path = tmp_path_factory.mktemp("bundle") / file_name(content)
    path.write_bytes(content)
    return path


@pytest.fixture
def make_job(tmp_path: Path, wrapper: Path) -> Iterator[Callable[[], Job]]:
    jobs: list[Job] = []

    def make() -> Job:
        number = len(jobs)
        jobs.append(Job(tmp_path / f"job{number}", wrapper, tmp_path / f"tmp{number}"))
        return jobs[-1]

    yield make
    for job in jobs:
        job.kill()


@pytest.fixture
def job(make_job: Callable[[], Job]) -> Job:
    return make_job()


@pytest.fixture
def python() -> str:
    return os.path.realpath(sys.executable)


@pytest.fixture
def start(job: Job, python: str) -> Start:
    """Start a job with a door; its engine is told where to listen by `at`."""

    def start(*arguments: str, at: object = SOCKET, script: str = ENGINE, **parameters: Any) -> Job:
        job.write(
            **{
                "command": [python, "-c", script, [at], *arguments],
                "listens": True,
                "door": door(job.parameters["token"]),
                "stop_grace": 5.0,
                **parameters,
            }
        )
        job.start()
        return job

    return start


@pytest.fixture
def served(start: Start) -> Job:
    job = start()
    job.until_step("serving")
    return job
