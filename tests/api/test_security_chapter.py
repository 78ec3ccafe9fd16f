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
    routes = [line for file in (ROOT / "api").rglob("*.py") for line in file.read_text().splitlines()]
    opened = {match[1] for line in routes if (match := re.search(r'@\w+\("([^"]+)".*opt=OPEN', line))}
    assert opened == {"/health", "/openapi.json", "/openapi.extended.json", "/docs", "/docs/extended"}
    assert sum("opt=OPEN" in line for line in routes) == len(opened)


def test_each_row_of_claims_names_a_test() -> None:
    text = PAGE.read_text()
    for heading in ("## Who may ask", "## What users' values can't become", "## Where secrets are"):
        rows = [line for line in text[text.index(heading) :].split("\n## ")[0].splitlines() if line.startswith("| ")]
        assert len(rows) > 4
        for row in rows[1:]:
            assert "`test_" in row or row.startswith("| ---"), row
