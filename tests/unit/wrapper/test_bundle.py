from __future__ import annotations

import ast
import io
import zipfile
from pathlib import Path

import pytest

from controller import wrapper
from controller.bundle import bundle, file_name

SOURCES = sorted(Path(wrapper.__file__).parent.rglob("*.py"))


def test_the_same_source_gives_the_same_bytes() -> None:
    assert bundle() == bundle()
    assert file_name(bundle()) == file_name(bundle())
    assert file_name(b"") == "wrapper-e3b0c44298fc.pyz"


def test_holds_the_wrapper_and_nothing_else() -> None:
    names = zipfile.ZipFile(io.BytesIO(bundle())).namelist()
    assert names[:2] == ["__main__.py", "controller/__init__.py"]
    assert "controller/wrapper/__main__.py" in names
    assert all(name.startswith("controller/wrapper/") for name in names[2:])


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.name)
def test_is_written_for_the_standard_library(source: Path) -> None:
    tree = ast.parse(source.read_text())
    imported = {
        name
        for node in ast.walk(tree)
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    assert not {name for name in imported if name.partition(".")[0] in ("api", "msgspec", "pydantic")}
    assert all(name.startswith("controller.wrapper") for name in imported if name.startswith("controller"))
