from __future__ import annotations

import ast
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from controller.bundle import SHARED, WRAPPER, bundle, file_name

SOURCES = sorted((*SHARED.rglob("*.py"), *WRAPPER.rglob("*.py")))


def test_the_same_source_gives_the_same_bytes() -> None:
    assert bundle() == bundle()
    assert file_name(bundle()) == file_name(bundle())
    assert file_name(b"") == "wrapper-e3b0c44298fc1c149afbf4c8996fb924.pyz"


def test_holds_what_the_wrapper_needs_and_nothing_else(tmp_path: Path) -> None:
    packed = tmp_path / "wrapper.pyz"
    packed.write_bytes(bundle())
    modules = "controller.wrapper.__main__, controller.wrapper.door.serve"
    needs = f"import sys; sys.path[:0] = [{str(packed)!r}]; import {modules}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-I", "-c", needs], check=True, capture_output=True, text=True)
    needed = {name for name in done.stdout.split() if name.partition(".")[0] in ("api", "controller")}
    names = zipfile.ZipFile(packed).namelist()
    packages = {name.removesuffix("/__init__.py") for name in names}
    assert {name.removesuffix(".py").replace("/", ".") for name in packages} == {"__main__"} | needed
    assert names == sorted(names)
    assert "controller.wrapper.__main__" in needed


def test_a_python_without_ssl_runs_jobs_that_have_no_door() -> None:
    needs = "import sys; import controller.wrapper.__main__; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", needs], check=True, capture_output=True, text=True)
    assert not {"ssl", "asyncio"} & set(done.stdout.split())


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
    assert not {name for name in imported if name.partition(".")[0] in ("msgspec", "pydantic")}
    ours = [name for name in imported if name.startswith(("api", "controller"))]
    assert all(name.startswith(("api.contract.job", "controller.wrapper")) for name in ours)
