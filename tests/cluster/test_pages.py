"""docs/first-steps.md and docs/recipes.md: all that they have people type is typed as it stands, and does what it says.

`make demo` is the real one, with a private Slurm of its own. In vLLM's place stands the engine of inference/vllm_dummy.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.system import System, running
from tests.pages import ROOT, Reader
from tests.ports import free_port
from tests.slurm_cluster import SlurmCluster

pytestmark = [pytest.mark.cluster, pytest.mark.proof]

STAND_IN = '''#!/usr/bin/python3
"""vllm serve MODEL [options], by the stand-in that lies beside it."""
import os, pathlib, sys

options = dict(zip(sys.argv[3:], sys.argv[4:]))
engine = pathlib.Path(__file__).with_name("vllm_dummy_engine.py")
chosen = ["--uds", options["--uds"], "--model", options["--served-model-name"]]
os.execv(sys.executable, [sys.executable, str(engine), *chosen])
'''


@pytest.fixture
def folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="af-page-"))
    yield folder
    shutil.rmtree(folder)


def environment(**more: str) -> dict[str, str]:
    """The reader's environment: nothing of whoever runs the tests."""
    mine = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM", "AI_FACTORY", "MAKE", "MFLAGS", "GIT_"))}
    return mine | {"TERM": "dumb", "COLUMNS": "200"} | more


def repository(folder: Path) -> Path:
    """Make a repository of this source tree, and in it what `make demo` would else download."""
    made = ("*.git", ".venv*", ".local", ".*_cache", "__pycache__", ".hypothesis")
    shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns(*made))
    (folder / ".venv").symlink_to(sys.prefix)
    tools = folder / ".local" / "tools"
    (tools / "vllm" / "bin").mkdir(parents=True)
    (tools / "apptainer").symlink_to(ROOT / ".local" / "tools" / "apptainer")
    version = re.search(r"VLLM_VERSION:-([0-9.]+)", (ROOT / "deploy/local/install-vllm").read_text())
    assert version is not None
    (tools / "vllm" / f".complete-{version[1]}").touch()
    (tools / "vllm" / "bin" / "vllm").write_text(STAND_IN)
    (tools / "vllm" / "bin" / "vllm").chmod(0o755)
    shutil.copy(ROOT / "recipes/inference/vllm_dummy_engine.py", tools / "vllm" / "bin")
    (tools / "vllm" / "bin" / "python3").symlink_to("/usr/bin/python3")
    (tools / "models" / "smollm2").mkdir(parents=True)
    (tools / "models" / "smollm2" / "config.json").write_text("{}")
    somebody = ("-c", "user.name=x", "-c", "user.email=x@localhost")
    for command in (["init", "--quiet"], ["add", "--all", "--force"], [*somebody, "commit", "--quiet", "-m", "x"]):
        subprocess.run(["git", *command], cwd=folder, check=True, timeout=60)
    return folder


def make_without_venv(folder: Path) -> Path:
    """Write a `make` that takes the clone's .venv as it is, though all of a clone's files are new."""
    folder.mkdir()
    (folder / "make").write_text(f'#!/bin/sh\nexec {shutil.which("make")} --assume-old=.venv/.complete "$@"\n')
    (folder / "make").chmod(0o755)
    return folder


def test_first_steps(folder: Path, apptainer: str) -> None:
    port = str(free_port())
    reader = Reader(
        folder / "empty",
        environment(
            REPOSITORY=str(repository(folder / "origin")),
            AI_FACTORY_DEMO_PORT=port,
            AI_FACTORY_API_PORT=port,
            PATH=f"{make_without_venv(folder / 'bin')}:{os.environ['PATH']}",
        ),
    )
    try:
        assert reader.follow(ROOT / "docs" / "first-steps.md") >= 15
        assert reader.first_ended() == 0
        assert [path.name for path in reader.folder.iterdir()] == [".papers"], "nothing is left"
    finally:
        reader.leave()
        for cluster in reader.folder.glob("*/.local/demo/slurm"):
            subprocess.run([ROOT / "deploy/local/slurm-down", cluster, "--wipe"], check=True, timeout=120)


def test_recipes(folder: Path, slurm_cluster: SlurmCluster, apptainer: str) -> None:
    system = System(folder, slurm_cluster, apptainer)
    reader = Reader(
        folder / "empty",
        environment(
            SOURCE=str(ROOT),
            PATH=f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            AI_FACTORY_CONFIG=str(system.config),
            AI_FACTORY_API_PORT=str(system.port),
        ),
    )
    system.configure(f"{folder}/recipes", f"{reader.folder}/recipes")
    try:
        with running(system):
            assert reader.follow(ROOT / "docs" / "recipes.md") >= 8
    finally:
        reader.leave()
