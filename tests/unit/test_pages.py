"""The reader of pages notices what a page has wrong."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.pages import Reader, same


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    reader = Reader(tmp_path / "empty", {"PATH": os.environ["PATH"]})
    yield reader
    reader.leave()


def page(tmp_path: Path, *fences: str) -> Path:
    page = tmp_path / "page.md"
    page.write_text("\n".join(f"Some words.\n\n```{fence}\n```\n" for fence in fences))
    return page


def test_a_page_that_is_true(reader: Reader, tmp_path: Path) -> None:
    true = page(
        tmp_path,
        "sh\nmkdir sub\ncd sub\nX=1",
        "sh\npwd; echo $X",
        "text\n…/empty/sub\n1",
        "yaml\n# sub/a.yaml\nkey: value",
        "yaml\nkey: no file",
        "sh\ngrep key: a.yaml; ls | wc -l",
        "text\nkey:   value\n1",
        "sh fails\nfalse",
        "sh\necho $X",
        "text\n1",
        "json\n{}",
        "sh first terminal\necho up; sleep 60",
        "text\nup",
        "sh\ntrue",
    )
    assert reader.follow(true) == 7


@pytest.mark.parametrize(
    "fences",
    [
        ["sh\nfalse"],
        ["sh\nfalse; true"],
        ["sh\nfalse | cat"],
        ["sh fails\ntrue"],
        ["sh\necho a; echo b", "text\na"],
        ["sh\necho a", "text\na\nb"],
        ["sh\necho a b", "text\nab"],
        ["sh often\ntrue"],
        ["sh first terminal\nsleep 60"],
        ["toml\n# /etc/somewhere.toml\nx = 1"],
    ],
)
def test_a_page_that_is_not(reader: Reader, tmp_path: Path, fences: list[str]) -> None:
    with pytest.raises(AssertionError):
        reader.follow(page(tmp_path, *fences))


@pytest.mark.parametrize(
    ("shown", "printed", "expected"),
    [
        ("a … c", "a b c", True),
        ("a … c", "a b\nc", False),
        ("…\nc", "a\nb\nc", True),
        ("…\nc", "c", True),
        ("…", "", True),
        ("a\n…\nc", "a\nb\nd", False),
        ("a.c", "abc", False),
        ("a  b", " a b\n\n", True),
    ],
)
def test_what_is_shown(shown: str, printed: str, expected: bool) -> None:
    assert same(shown, printed) is expected
