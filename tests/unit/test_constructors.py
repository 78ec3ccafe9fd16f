"""Who works is made of few parts: what would be an eighth is a noun that is missing.

That no function takes more than seven arguments is ruff's to say (PLR0913, `max-args`): it does not see dataclasses.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.pages import ROOT

MOST = 7


def workers_of_many_parts(source: str) -> Iterator[str]:
    """Find the dataclasses of more fields that are more than values: that can change, or have coroutines."""
    for each in ast.walk(ast.parse(source)):
        if not isinstance(each, ast.ClassDef) or sum(isinstance(line, ast.AnnAssign) for line in each.body) <= MOST:
            continue
        decorators = [ast.unparse(decorator) for decorator in each.decorator_list]
        is_dataclass = any(decorator.startswith("dataclass") for decorator in decorators)
        is_frozen = any("frozen=True" in decorator for decorator in decorators)
        if is_dataclass and (not is_frozen or any(isinstance(line, ast.AsyncFunctionDef) for line in each.body)):
            yield each.name


FIELDS = "".join(f"    f{number}: int\n" for number in range(MOST + 1))


@pytest.mark.parametrize(
    ("source", "found"),
    [
        (f"@dataclass(frozen=True)\nclass A:\n{FIELDS}", []),
        (f"@dataclass\nclass A:\n{FIELDS}", ["A"]),
        (f"@dataclass(frozen=True)\nclass A:\n{FIELDS}    async def work(self): ...\n", ["A"]),
        ("@dataclass\nclass A:\n    f: int\n    async def work(self): ...\n", []),
    ],
)
def test_they_are_found(source: str, found: list[str]) -> None:
    assert list(workers_of_many_parts(source)) == found


@pytest.mark.parametrize("folder", ["api", "controller"])
def test_there_are_none(folder: str) -> None:
    files = sorted((ROOT / folder).rglob("*.py"))
    found = {
        f"{Path(file).relative_to(ROOT)}: {name}" for file in files for name in workers_of_many_parts(file.read_text())
    }
    assert found == set()
