"""A backup under load, restored on another path while the services run: nothing is evicted, nothing doubled."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.system import PATIENCE, System, running, wait_for
from tests.slurm_cluster import SlurmCluster

pytestmark = pytest.mark.cluster


@pytest.fixture
def own(slurm_cluster: SlurmCluster, apptainer: str) -> Iterator[System]:
    """An installation of this test's own: it loses its database."""
    folder = Path(tempfile.mkdtemp(prefix="af-test-"))
    with running(System(folder, slurm_cluster, apptainer)) as system:
        yield system
    shutil.rmtree(folder)


def ai_factory(system: System, *arguments: str) -> str:
    """Run the command line; return what it prints."""
    command = [sys.executable, "-m", "api.cli", "--config", str(system.config), *arguments]
    done = subprocess.run(command, check=False, timeout=60, capture_output=True, text=True, cwd=system.folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def backup_under_load(system: System) -> None:
    """Make a backup while services are created and deleted."""
    over = threading.Event()

    def load() -> None:
        while not over.is_set():
            system.client.delete(f"/api/v1/services/{system.create(resources={'partition': 'none'})}")

    loading = threading.Thread(target=load)
    loading.start()
    try:
        ai_factory(system, "backup", str(system.folder / "backup.tar"))
    finally:
        over.set()
        loading.join()


def lose_and_restore(system: System) -> None:
    """Stop the programs, lose the database, restore it on another path."""
    for name in ("controller", "api"):
        system.kill(name, signal.SIGTERM)
    (system.folder / "state").rename(system.folder / "lost")
    system.config.write_text(system.config.read_text().replace("/state", "/elsewhere"))
    (system.folder / "state").symlink_to("elsewhere")
    told = ai_factory(system, "restore", str(system.folder / "backup.tar"))
    assert "`ai-factory adopt` shows the jobs that were submitted since" in told


def strays(system: System, *flags: str) -> dict[str, Any]:
    """Return what `adopt` tells, by token."""
    return {each["token"]: each for each in json.loads(ai_factory(system, "adopt", "-o", "json", *flags))}


def test_restored_with_services_running(own: System) -> None:
    kept, replaced = own.create(replicas=2), own.create()
    for key in (kept, replaced):
        own.wait_status(key, "running")
    backup_under_load(own)
    first = own.open_attempt(replaced)
    own.slurm("scancel", str(first["job_id"]))
    wait_for(lambda: len(own.attempts(replaced)) == 2, "it is replaced", PATIENCE, lambda: own.story(replaced))
    own.wait_status(replaced, "running")
    newer, unknown = own.open_attempt(replaced), own.create()
    own.wait_status(unknown, "running")
    unknown_job = own.open_attempt(unknown)["job_id"]
    before = {job["id"]: job["name"] for job in own.jobs("RUNNING")}

    lose_and_restore(own)
    found = strays(own)
    assert {t: (s["service"], s["as_wanted"], s["taken"]) for t, s in found.items()} == {
        newer["token"]: (f"vllm_dummy-{replaced}", True, False),
        before[unknown_job]: (None, None, False),
    }
    assert {t: s["taken"] for t, s in strays(own, "--take").items()} == {
        newer["token"]: True,
        before[unknown_job]: False,
    }
    own.start()
    for key in (kept, replaced):
        own.wait_status(key, "running")
    assert own.open_attempt(replaced)["token"] == newer["token"]
    assert own.prompt(replaced, "hello")["success"] is True
    closed = own.attempts(replaced)[0]
    # As its successor was opened: in its place, or beside it while it ended.
    assert (closed["token"], closed["outcome"] in ("Superseded", "Cancelled")) == (first["token"], True)
    wait_for(lambda: own.attempts(replaced)[0]["gone_at"] is not None, "the old one is settled")
    # Two readings later, still nothing was cancelled and nothing came; what is unknown is left alone.
    seen = own.sql("SELECT renewals FROM leases")[0][0]
    wait_for(lambda: own.sql("SELECT renewals FROM leases")[0][0] > seen + 6, "the controller was at work for a while")
    assert {job["id"]: job["name"] for job in own.jobs("RUNNING")} == before
    own.slurm("scancel", str(unknown_job))
    for key in (kept, replaced):
        own.delete(key)


def test_nothing_is_taken_over_behind_a_controllers_back(own: System) -> None:
    command = [sys.executable, "-m", "api.cli", "--config", str(own.config), "adopt"]
    wait_for(lambda: own.sql("SELECT 1 FROM leases WHERE holder IS NOT NULL"), "it leads")
    assert ai_factory(own, "adopt") == "The database knows every job.\n"
    done = subprocess.run([*command, "--take"], check=False, timeout=60, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert "Stop it first, and start it again afterwards." in done.stderr
