"""A node whose Python is too old or missing: the service says so, and comes when there is one."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.system import System, running
from tests.slurm_cluster import SlurmCluster

pytestmark = pytest.mark.cluster


@pytest.fixture
def bin_folder() -> Iterator[Path]:
    """All that jobs find on PATH: what the machine has, but no Python that will do."""
    folder = Path(tempfile.mkdtemp(prefix="af-bin-"))
    folder.chmod(0o755)
    for program in (*Path("/usr/bin").iterdir(), *Path("/usr/sbin").iterdir()):
        if not program.name.startswith("python") and not (folder / program.name).is_symlink():
            (folder / program.name).symlink_to(program)
    (folder / "python3").write_text("#!/bin/sh\necho 3.6.8; exit 1\n")
    (folder / "python3").chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def system(slurm_cluster: SlurmCluster, apptainer: str, bin_folder: Path) -> Iterator[System]:
    folder = Path(tempfile.mkdtemp(prefix="af-test-"))
    without = System(folder, slurm_cluster, apptainer)
    site = f'python = "/opt/none/python3"\nprologue = "export PATH={bin_folder}"\n'
    without.configure("[slurm]\n", f"[slurm]\n{site}")
    with running(without) as system:
        yield system
    shutil.rmtree(folder)


def test_a_node_without_a_python_is_named_with_what_was_found(system: System, bin_folder: Path) -> None:
    key = system.create("simple/hello")
    service = system.wait_status(key, "failed")
    attempts = system.attempts(key)
    assert {(a["outcome"], a["exit_code"]) for a in attempts} == {("PythonMissing", 1)}
    assert f"slurm.python is /opt/none/python3. Found: {bin_folder}/python3 (3.6.8). Not found: " in service["message"]
    assert "Set slurm.python to one that every node has" in service["message"]

    # another one is taken by itself
    (bin_folder / "python3.11").symlink_to(Path(sys.executable).resolve())
    system.sql("UPDATE services SET config = json_set(config, '$.greeting', 'Servus') WHERE id = ?", key)
    system.wait_status(key, "completed")
    system.delete(key)
