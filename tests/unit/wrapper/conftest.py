"""A fresh job folder for each test, and the wrapper's bundle for all of them."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from controller.bundle import bundle, file_name

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
