"""What the documentation tells people to type is understood, and the settings that it names are there."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_cli_grammar import commands as grammar

from api.cli.arguments import build
from api.cli.errors import EXIT_CODES
from api.cli.site.config import leaves
from api.contract.configuration import load

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
CODE = re.compile(r"`([^`\n]+)`")
SETTING = re.compile(r"(?<![\w./-])(?:api|slurm|controller|apptainer|images)\.[a-z_]+(?![\w.])")
PACKAGES = {"api.cli", "api.contract", "api.gateway", "api.http", "api.web", "controller.commands", "controller.slurm"}
REDIRECTION = re.compile(r" [<>]\S+")
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
        _, *words = shlex.split(REDIRECTION.sub("", SUBSTITUTION.sub("x", command)))
        arguments = build().parse_args(words)
        assert arguments.output in arguments.formats, command


@pytest.mark.parametrize("page", [ROOT / "README.md", ROOT / "docs/cli.md"], ids=lambda page: page.name)
def test_flags_are_there(page: Path) -> None:
    """On the other pages flags may be those of Slurm's commands."""
    known = {"--help"} | {
        flag for _, parser in grammar(build()) for action in parser._actions for flag in action.option_strings
    }
    named = {code.split()[0].split("=")[0] for code in CODE.findall(page.read_text()) if code.startswith("--")}
    assert named - known == set()


def test_every_command_is_shown_somewhere() -> None:
    shown = [shlex.split(SUBSTITUTION.sub("x", command))[1:] for page in PAGES for command in commands(page)]
    for path, parser in grammar(build()):
        if parser.get_default("run") is not None and path != "complete":
            words = path.split()
            assert any(one[: len(words)] == words for one in shown), path


def test_the_chapters_exit_codes_are_those_of_the_help() -> None:
    rows = re.findall(r"^\| (\d+) \| (.*) \|$", (ROOT / "docs/cli.md").read_text(), re.MULTILINE)
    assert [f"{code:<5}{meaning}" for code, meaning in rows] == [line.strip() for line in EXIT_CODES.splitlines()[1:]]


def test_there_are_commands_to_be_checked() -> None:
    assert sum(len(list(commands(page))) for page in PAGES) > 20


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_settings_are_there(page: Path, home: Path) -> None:
    known = {path for path, _ in leaves(load())}
    named = {code for text in CODE.findall(page.read_text()) for code in SETTING.findall(text)}
    assert named - known - PACKAGES == set()
