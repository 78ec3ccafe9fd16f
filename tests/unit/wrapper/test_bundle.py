from __future__ import annotations

import ast
import io
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from controller import wrapper
from controller.wrapper.bundle import bundle, file_name

from .jobs import Job

SOURCES = sorted(Path(wrapper.__file__).parent.glob("*.py"))


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
def test_is_written_for_python_3_9_and_the_standard_library(source: Path) -> None:
    tree = ast.parse(source.read_text(), feature_version=(3, 9))
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


def pythons() -> list[str]:
    """Find the Pythons of this machine, this one among them; a shim that starts nothing is none."""
    ask = "import sys; print(sys.executable)"
    found = {sys.executable}
    for path in (shutil.which(f"python3.{minor}") for minor in range(9, 15)):
        if path is not None:
            answer = subprocess.run([path, "-c", ask], capture_output=True, text=True, check=False)
            found.update([answer.stdout.strip()] if answer.returncode == 0 else [])
    return sorted(found)


@pytest.mark.parametrize("python", pythons())
def test_runs_under_every_python_that_is_here(job: Job, python: str) -> None:
    volumes = [{"source": str(job.temporary / "volume"), "target": "/data"}]
    check = {"command": ["true"], "interval": 0.1}
    job.write(command=["sh", "-c", "echo hello; sleep 0.4"], check=check, volumes=volumes, token="af-i-s-0-1")
    job.start(argv=[python, "-I", str(job.wrapper), str(job.folder)])
    assert job.wait() == 0, job.stderr
    assert (job.stdout, job.stderr) == ("hello\n", "")
    assert job.state["health"]["ok"] is True
    assert (job.temporary / "volume" / "lock.2").exists(), "taken and given back"
