from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from api.contract.configuration import shared_folder
from api.contract.launch import LaunchSpec
from api.contract.recipes.book import Book, Library, Recipe, read_recipe
from api.contract.recipes.errors import ConfigError
from api.contract.recipes.resolve import resolve
from api.contract.settings import SlurmSettings

HEAD = """\
name: demo
category: test
description: For tests.
version: 1.0.0
"""
PROGRAM = "program: [run]\n"


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Write a recipe file; lines from 5 on are the test's own."""

    def write(body: str | bytes = "", *, path: str = "test/demo", head: str = HEAD, program: str = PROGRAM) -> Path:
        file = tmp_path / "recipes" / f"{path}.yaml"
        file.parent.mkdir(parents=True, exist_ok=True)
        text = body if isinstance(body, bytes) else (head + body + program).encode()
        file.write_bytes(text)
        return file

    return write


@pytest.fixture
def read(write: Callable[..., Path]) -> Callable[..., Recipe]:
    """Write a recipe and read it back, under the site's changes."""

    def read(body: str | bytes = "", changes: dict[str, Any] | None = None, **options: Any) -> Recipe:
        return read_recipe(write(body, **options), "test/demo", changes or {})

    return read


@pytest.fixture(scope="session")
def shipped() -> Book:
    """The recipes of this repository."""
    return Library([shared_folder("recipes")], {}).book()


@pytest.fixture
def launch(read: Callable[..., Recipe]) -> Callable[..., LaunchSpec]:
    """Resolve a recipe, given as YAML, under a config."""

    def launch(body: str = "", config: dict[str, Any] | None = None, **options: Any) -> LaunchSpec:
        replicas, site = options.pop("replicas", None), options.pop("site", SlurmSettings())
        return resolve(read(body, **options), config or {}, replicas=replicas, site=site)

    return launch


@pytest.fixture
def refusal(launch: Callable[..., LaunchSpec]) -> Callable[..., ConfigError]:
    """Resolve what must be refused."""

    def refusal(body: str, config: dict[str, Any], **options: Any) -> ConfigError:
        with pytest.raises(ConfigError) as caught:
            launch(body, config, **options)
        return caught.value

    return refusal
