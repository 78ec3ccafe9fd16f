"""docs/testing.md names every target that checks or measures something, and every part of the suite."""

from __future__ import annotations

import re

from tests.pages import ROOT
from tests.run import PARTS

CHAPTER = (ROOT / "docs" / "testing.md").read_text()
OTHERS = {"help", "install", "venv", "demo", "demo-down", "clean"}
"""Targets that prove nothing."""


def test_every_target_has_a_line() -> None:
    targets = set(re.findall(r"^([a-z-]+):.*##", (ROOT / "Makefile").read_text(), re.MULTILINE)) - OTHERS
    assert set(re.findall(r"^\| `make ([a-z-]+)` \|", CHAPTER, re.MULTILINE)) == targets


def test_every_part_has_a_line() -> None:
    told = {
        (name, target)
        for names, target in re.findall(r"^\| ((?:`[a-z0-9]+`(?:, )?)+) \| ([a-z]+) \|", CHAPTER, re.MULTILINE)
        for name in re.findall(r"`([a-z0-9]+)`", names)
    }
    assert told == {(part.name, part.target) for part in PARTS}
