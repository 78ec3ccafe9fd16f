"""Images made in jobs of their own, on a real Slurm with a real Apptainer, and what services make of them."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.system import System, running, wait_for
from tests.slurm_cluster import SlurmCluster

pytestmark = pytest.mark.cluster

SITE = """
[images]
build = "job"
cpu = 1
memory = "512M"
time_limit = 5
"""
HEEDING = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a suite in the background was told to ignore it
from api.cli.main import main
sys.exit(main())
"""
RECIPE = """
name: slow
category: try
description: Says hello in an image that takes its time to be made
version: 1.0.0
kind: job
container_def: slow.def
binds: ["/usr:/usr:ro"]
program: [echo]
command: [hello]
"""
SLOW = "Bootstrap: scratch\n%setup\n    echo $$ >{folder}/pid; exec sleep 600\n"


@pytest.fixture(scope="module")
def system(slurm_cluster: SlurmCluster, apptainer: str) -> Iterator[System]:
    folder = Path(tempfile.mkdtemp(prefix="af-test-"))
    with running(System(folder, slurm_cluster, apptainer, more=SITE)) as system:
        yield system
    shutil.rmtree(folder)


def start(system: System, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", HEEDING, "--config", str(system.config), "images", *arguments]
    return subprocess.Popen(command, cwd=system.root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def images(system: System, *arguments: str) -> tuple[Any, str]:
    """Run a command; return its answer, and what it told."""
    with start(system, *arguments, "-o", "json") as command:
        out, err = command.communicate(timeout=90)
    assert command.returncode == 0, err
    return json.loads(out), err


def left(system: System) -> list[str]:
    return [path.name for path in (system.folder / "run" / "images" / "making").iterdir()]


def test_an_image_made_beforehand_is_what_services_run(system: System) -> None:
    made, told = images(system, "build", "inference/vllm_dummy")
    assert made["made"] is True
    assert "Build complete" in told
    job = re.search(r"^job (\d+) is submitted$", told, re.MULTILINE)
    assert job is not None
    shown = system.slurm("scontrol", "show", "job", job[1])
    assert "JobState=COMPLETED" in shown
    assert "TimeLimit=00:05:00" in shown
    assert "gres" not in shown
    assert left(system) == []

    key = system.create(name="chat")
    system.wait_status(key, "running")
    token = system.open_attempt(key)["token"]
    (listed,), _ = images(system, "list")
    assert listed["services"] == ["chat"]
    assert listed["jobs"] == [token]
    assert listed["made_at"] == made["made_at"], "no job made it anew"
    (kept,), _ = images(system, "prune", "--unused-for", "0")
    assert (kept["removed"], kept["why"]) == (False, "used by chat")

    # whatever the database says, the job itself holds what it runs
    hidden = system.folder / "empty"
    settings = {"AI_FACTORY_STATE_DIR": str(hidden), "AI_FACTORY_DATABASE_URL": f"sqlite:///{hidden}/x.db"}
    for command in (["migrate"], ["images", "prune", "--unused-for", "0"]):
        line = [sys.executable, "-m", "api.cli", "--config", str(system.config), *command]
        ran = subprocess.run(
            line, cwd=system.root, env=os.environ | settings, capture_output=True, text=True, check=True
        )
    assert "a running job uses it" in ran.stdout
    assert system.status(key) == "running"

    system.delete(key)
    (gone,), _ = images(system, "prune", "--unused-for", "0")
    assert gone["removed"] is True
    assert images(system, "list")[0] == []


def test_a_service_waits_without_gpus_for_a_missing_image(system: System) -> None:
    folder = system.folder / "recipes" / "try"
    folder.mkdir()
    host = (system.root / "recipes" / "host.def").read_text()
    wait = f"%setup\n    until [ -e {system.folder}/go ]; do sleep 0.1; done\n"
    (folder / "slow.def").write_text(host.replace("%setup\n", wait))
    (folder / "slow.yaml").write_text(RECIPE)
    key = system.create("try/slow", resources={"gpu": 1, "cpu": 1, "memory": "256M"})
    message = system.wait_status(key, "building")["message"]
    attempt = system.open_attempt(key)
    assert f"The job {attempt['job_id']} waits for another one, which makes its image." in message
    (maker,) = wait_for(lambda: makers(system, "RUNNING"), "a job makes the image")
    waiting = system.slurm("scontrol", "show", "job", str(attempt["job_id"]))
    assert "JobState=PENDING" in waiting
    assert f"afterany:{maker}" in waiting
    (system.folder / "go").touch()
    system.wait_status(key, "completed")
    (done,) = system.attempts(key)
    assert done["outcome"] == "Completed"
    (made,), _ = images(system, "list")
    (log,) = (system.folder / "run").glob(f"*/{key}/{done['token']}/stderr.log")
    assert "Build complete" not in log.read_text(), "the job that waited made no image"
    assert made["services"], "a completed service is not a deleted one"
    (name,) = left(system)
    assert "Build complete" in (system.folder / "run/images/making" / name / "stderr.log").read_text()
    system.delete(key)
    images(system, "prune", "--unused-for", "0")


def makers(system: System, state: str) -> list[str]:
    """Return the jobs that make, or made, images."""
    lines = system.slurm("squeue", "-h", "-t", state, "-o", "%i %j").splitlines()
    return [line.split()[0] for line in lines if line.split()[1].startswith("af-image-")]


def test_ctrl_c_cancels_the_job_and_leaves_nothing(system: System) -> None:
    definition, before = system.folder / "slow.def", left(system)
    definition.write_text(SLOW.format(folder=system.folder))
    with start(system, "build", str(definition)) as building:
        pid = wait_for(
            lambda: (system.folder / "pid").exists() and (system.folder / "pid").read_text().strip(), "the build runs"
        )
        building.send_signal(signal.SIGINT)
        out, told = building.communicate(timeout=90)
    assert (building.returncode, out) == (130, "")
    assert told.splitlines()[-1] == "ai-factory: interrupted; nothing was made."
    job = re.search(r"^job (\d+) is submitted$", told, re.MULTILINE)
    assert job is not None
    assert "JobState=CANCELLED" in system.slurm("scontrol", "show", "job", job[1])
    wait_for(lambda: not Path("/proc", str(pid)).exists(), "the build has ended")
    assert left(system) == before
    assert images(system, "list")[0] == []


def test_what_slurm_refuses_is_told(system: System) -> None:
    before = left(system)
    line = [
        sys.executable,
        "-m",
        "api.cli",
        "--config",
        str(system.config),
        "images",
        "pull",
        "docker://example.invalid/x",
    ]
    wrong = os.environ | {"AI_FACTORY_IMAGES_PARTITION": "nowhere"}
    ran = subprocess.run(line, cwd=system.root, env=wrong, capture_output=True, text=True, check=False, timeout=90)
    assert ran.returncode == 1
    assert ran.stderr.startswith("ai-factory: Slurm did not take the job: ")
    assert "nowhere" in ran.stderr or "artition" in ran.stderr
    assert left(system) == before
