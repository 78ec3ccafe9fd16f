"""A database is lost while its services run: that is said, and their jobs are taken up again, or ended on purpose."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.system import System, running, wait_for
from tests.slurm_cluster import SlurmCluster

pytestmark = pytest.mark.cluster


@pytest.fixture
def own(slurm_cluster: SlurmCluster, apptainer: str) -> Iterator[System]:
    """An installation of this test's own: it loses its database."""
    folder = Path(tempfile.mkdtemp(prefix="af-test-"))
    system = System(folder, slurm_cluster, apptainer)
    with running(system):
        first = installation(system)
        yield system
    left = [job_id for job_id, name in listed(system) if name.startswith(f"af-{first}-")]
    if left:
        system.slurm("scancel", *left)
    shutil.rmtree(folder)


def ai_factory(system: System, *arguments: str, code: int = 0) -> str:
    """Run the command line; return all that it prints."""
    command = [sys.executable, "-m", "api.cli", "--config", str(system.config), *arguments]
    done = subprocess.run(command, check=False, timeout=60, capture_output=True, text=True, cwd=system.folder)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def installation(system: System) -> str:
    return str(system.sql("SELECT id FROM installation")[0][0])


def listed(system: System) -> list[tuple[str, str]]:
    """Return id and name of each job on the cluster."""
    lines = system.slurm("squeue", "-h", "-t", "PENDING,RUNNING", "-o", "%i %j").splitlines()
    return [(line.split()[0], line.split()[1]) for line in lines]


def stop(system: System) -> None:
    for name in ("controller", "api"):
        system.kill(name, signal.SIGTERM)


def lose_database(system: System) -> None:
    """Stop the programs, and lose their database and nothing else."""
    stop(system)
    for path in (system.folder / "state").glob("ai-factory.db*"):
        path.unlink()


def test_its_jobs_are_taken_up_under_the_old_id_and_never_stop(own: System) -> None:
    key = own.create(name="kept", model="tiny")
    own.wait_status(key, "running")
    before, lost = own.open_attempt(key), installation(own)
    job = str(before["job_id"]), before["token"]
    lose_database(own)

    for command in ("migrate", "up"):
        refused = ai_factory(own, command, code=3)
        assert f"installation {lost} was run from here ({own.folder}/state/plans.jsonl, " in refused
        assert f"ai-factory migrate --installation {lost}; or" in refused
    told = json.loads(ai_factory(own, "doctor", "--no-job", "-o", "json", code=1))
    found = {result["name"]: result for result in told}
    assert found["database"]["state"] == "failed"
    assert f"1 job of installation {lost} ({job[0]} kept)" in found["other installations"]["message"]

    ai_factory(own, "migrate", "--installation", lost)
    unknown = ai_factory(own, "adopt")
    assert f"job {job[0]}, RUNNING" in unknown
    assert f"its service {key} is unknown here" in unknown
    own.sql(
        "INSERT INTO services (id, name, recipe_name, config) VALUES (?, 'kept', 'inference/vllm_dummy', ?)",
        *(key, '{"model": "tiny"}'),
    )
    assert f"{job[1]}: is replica 0 of kept from now on" in ai_factory(own, "adopt", "--take")
    own.start()
    own.wait_status(key, "running")
    after = own.open_attempt(key)
    assert (str(after["job_id"]), after["token"], after["digest"]) == (*job, before["digest"])
    assert own.prompt(key, "hello")["success"] is True
    seen = own.sql("SELECT renewals FROM leases")[0][0]
    wait_for(lambda: own.sql("SELECT renewals FROM leases")[0][0] > seen + 6, "the controller was at work for a while")
    assert [one for one in listed(own) if lost in one[1]] == [job]
    assert ai_factory(own, "adopt") == "The database knows every job.\n"
    own.delete(key)


def test_its_jobs_are_left_alone_by_a_new_installation_and_ended_on_purpose(own: System) -> None:
    key = own.create(name="left")
    own.wait_status(key, "running")
    attempt, lost = own.open_attempt(key), installation(own)
    job = str(attempt["job_id"]), attempt["token"]
    lose_database(own)
    ai_factory(own, "migrate", "--installation", "new")
    own.start()
    mine = own.create(name="mine")
    own.wait_status(mine, "running")
    assert job in listed(own)

    shown = ai_factory(own, "adopt")
    assert shown.startswith("The database knows every job.\n")
    assert f"job {job[0]}, RUNNING" in shown
    assert f"ai-factory adopt --cancel {lost}" in shown
    assert "is this installation" in ai_factory(own, "adopt", "--cancel", installation(own), code=1)
    assert "has no jobs of this user" in ai_factory(own, "adopt", "--cancel", "nobody", code=1)
    assert job in listed(own)
    ended = json.loads(ai_factory(own, "adopt", "--cancel", lost, "-o", "json"))
    assert [(one["job_id"], one["installation"]) for one in ended] == [(attempt["job_id"], lost)]
    wait_for(lambda: job not in listed(own), "it has ended")
    assert own.status(mine) == "running"
    own.delete(mine)
