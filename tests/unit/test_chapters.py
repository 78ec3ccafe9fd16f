"""What holds for every page: links lead somewhere, tests, files and targets are there, configurations load."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

import pytest

from api.contract.configuration import load
from tests.pages import FENCE, ROOT

CHAPTERS = sorted((ROOT / "docs").glob("*.md"))
PAGES = [ROOT / "README.md", *CHAPTERS, *sorted((ROOT / "docs" / "decisions").glob("*.md"))]
NAMES = {
    name
    for file in (ROOT / "tests").rglob("test_*.py")
    for name in (*re.findall(r"def (test_\w+)\(", file.read_text()), file.stem)
}


def prose(page: Path) -> str:
    return FENCE.sub("", page.read_text())


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as they are commonly made."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        other = (page.parent / path).resolve() if path else page
        assert other.exists(), target
        assert not anchor or anchor in anchors(other), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_tests_that_are_named_are_there(page: Path) -> None:
    assert set(re.findall(r"`(test_\w+)`", prose(page))) - NAMES == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_that_are_named_are_there(page: Path) -> None:
    named = re.findall(r"`((?:api|bench|controller|deploy|docs|migrations|recipes|tests)/[a-z0-9_./-]+)`", prose(page))
    assert [path for path in named if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_targets_of_make_are_there(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    code = re.findall(r"`([^`\n]+)`", prose(page)) + page.read_text().splitlines()
    named = {match[1] for line in code if (match := re.match(r" *(?:\$ )?make (?:-C \S+ )?([a-z-]+)", line))}
    assert named - targets == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_configurations_load(page: Path, tmp_path: Path) -> None:
    for block in re.findall(r"^ *```toml\n(.*?)^ *```$", page.read_text(), re.MULTILINE | re.DOTALL):
        (tmp_path / "config.toml").write_text(textwrap.dedent(block))
        load(config=tmp_path / "config.toml", environ={"HOME": str(tmp_path)})


def test_the_readme_names_every_chapter() -> None:
    named = set(re.findall(r"\]\(docs/([\w.-]+)\)", (ROOT / "README.md").read_text()))
    assert named == {page.name for page in CHAPTERS}
