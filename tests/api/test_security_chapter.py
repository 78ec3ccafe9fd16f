"""docs/security.md: what it has people type makes a key that the API takes, and each claim names its test.

That the tests it names are there is tested in tests/unit/test_chapters.py.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from api.web.auth import OPEN, read_admin_key
from tests.pages import ROOT, blocks

PAGE = ROOT / "docs" / "security.md"


def test_the_key_that_is_made_is_taken(tmp_path: Path) -> None:
    (block,) = [block for block in blocks(PAGE) if block.language == "sh"]
    subprocess.run(["bash", "-euc", block.text], cwd=tmp_path, check=True, timeout=30)
    assert re.fullmatch("[0-9a-f]{64}", read_admin_key(tmp_path / "admin.key"))


def test_only_documentation_and_health_are_open() -> None:
    assert OPEN == {"open": True}
    routes = [line for file in (ROOT / "api/http").rglob("*.py") for line in file.read_text().splitlines()]
    opened = {match[1] for line in routes if (match := re.search(r'@\w+\("([^"]+)".*opt=OPEN', line))}
    assert opened == {"/health", "/openapi.json", "/openapi.extended.json", "/docs", "/docs/extended"}
    heads = [line for line in routes if "@head(" in line and "opt=OPEN" in line]
    assert {path for line in heads for path in re.findall(r'"([^"]+)"', line)} == opened
    assert sum("opt=OPEN" in line for line in routes) == len(opened) + len(heads)


def test_each_row_of_claims_names_a_test() -> None:
    tables = [table.splitlines() for table in re.findall(r"(?:^\|.*\n)+", PAGE.read_text(), re.MULTILINE)]
    claims = [table for table in tables if "proof |" in table[0]]
    assert len(claims) >= 12
    for header, _, *rows in claims:
        for row in rows:
            proof = row.split(" | ")[-1] if header.endswith("proof |") else row
            assert "`test_" in proof, row


def test_each_attacker_has_a_table() -> None:
    """Those of whom an administrator has to think; the administrator is none."""
    section = PAGE.read_text().partition("## Who might attack\n")[2].partition("\n## ")[0]
    chapters = dict(re.findall(r"^### (.+)\n((?:(?!###).*\n)*)", section + "\n", re.MULTILINE))
    assert [*chapters] == [
        "A user of the login node", "A user of the compute node", "Somebody on the network", "A client without the key",
        "Who has a key",
        "A user whose config means ill", "A recipe's author", "An engine gone bad", "A gateway gone bad",
        "Who can read a folder or a backup",
    ]  # fmt: skip
    for name, text in chapters.items():
        assert "proof |\n|---" in text, name
