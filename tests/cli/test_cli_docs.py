"""What the documentation tells people to type is understood, and the settings that it names are there."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from api.cli.arguments import build
from api.cli.configuration import leaves
from api.contract.settings import load

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
CODE = re.compile(r"`([^`\n]+)`")
SETTING = re.compile(r"(?<![\w./-])(?:api|slurm|controller|apptainer|images)\.[a-z_]+(?![\w.])")
PACKAGES = {"api.cli", "api.contract", "api.gateway", "api.http"}
SUBSTITUTION = re.compile(r"\$\([^)]*\)")


def commands(page: Path) -> Iterator[str]:
    """Yield each command line of ours, from blocks and from running text."""
    for line in page.read_text().splitlines():
        if re.match(r"\$ ai-factory ", line):
            yield line.removeprefix("$ ").partition(" #")[0]
        yield from (code for code in CODE.findall(line) if re.match(r"ai-factory [a-z]", code) and "…" not in code)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_are_understood(page: Path) -> None:
    for command in commands(page):
        _, *words = shlex.split(SUBSTITUTION.sub("x", command))
        build().parse_args(words)


def test_there_are_commands_to_be_checked() -> None:
    assert sum(len(list(commands(page))) for page in PAGES) > 20


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_settings_are_there(page: Path, home: Path) -> None:
    known = {path for path, _ in leaves(load())}
    named = {code for text in CODE.findall(page.read_text()) for code in SETTING.findall(text)}
    assert named - known - PACKAGES == set()
