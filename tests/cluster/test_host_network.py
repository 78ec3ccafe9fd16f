"""Nodes that give no job a network of its own: its engine has the node's, and that is told."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.system import System, running, wait_for
from tests.networks import REFUSED, add_recipe, require_networks
from tests.slurm_cluster import SlurmCluster

pytestmark = pytest.mark.cluster


@pytest.fixture
def system(slurm_cluster: SlurmCluster, apptainer: str) -> Iterator[System]:
    """One whose jobs run a Python to which the kernel gives none."""
    require_networks()
    folder = Path(tempfile.mkdtemp(prefix="af-test-"))
    python = folder / "python"
    python.write_text(f'#!/bin/sh\nexec {shlex.join(REFUSED)} {sys.executable} "$@"\n')
    python.chmod(0o755)
    system = System(folder, slurm_cluster, apptainer)
    system.configure("[slurm]\n", f'[slurm]\npython = "{python}"\n')
    with running(system):
        yield system
    shutil.rmtree(folder)


def accepted(system: System, key: str) -> dict[str, str]:
    (conditions,) = system.sql("SELECT conditions FROM service_status WHERE service_id = ?", key)
    return next(one for one in json.loads(conditions[0]) if one["type"] == "Accepted")


def test_its_engine_has_the_nodes_and_the_service_says_so(system: System) -> None:
    key = system.create(add_recipe(system.folder / "recipes", "private"), name="own")
    system.wait_status(key, "running")
    assert "hello" in system.prompt(key, "hello")["response"]
    wait_for(
        lambda: accepted(system, key)["reason"] == "ValidOnHostNetwork", "it is told", story=lambda: system.story(key)
    )
    attempt, told = system.open_attempt(key), accepted(system, key)
    assert told["status"] == "True"
    assert f"which {attempt['node']} does not give it: its limit of namespaces is reached" in told["message"]
    system.delete(key)

    argv = [sys.executable, "-m", "api.cli", "--config", str(system.config), "doctor", "-o", "json"]
    doctor = subprocess.run(argv, timeout=120, capture_output=True, text=True, check=False, cwd=system.folder)
    (found,) = [one for one in json.loads(doctor.stdout) if one["name"] == "networks of jobs"]
    assert (found["state"], "its limit of namespaces is reached" in found["message"]) == ("warning", True)
