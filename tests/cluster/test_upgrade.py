"""What runs outlives upgrades, and going back: other programs take it over, and nothing is touched.

`tests/releases/0002` is what the release with that schema left: its database, the key, and of the job the parameters,
the batch script and the wrapper. Only what a machine gives out (ids, ports, times) is put in anew.
`tests/releases/0004/programs.tar.xz` is the whole of the release before this one: api, controller, migrations, recipes.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.cluster.system import PATIENCE, ROOT, System, wait_for
from tests.slurm_cluster import SlurmCluster

pytestmark = pytest.mark.cluster

RELEASE = ROOT / "tests" / "releases" / "0002"
BEFORE = ROOT / "tests" / "releases" / "0004"
INSTALLATION, SERVICE = "z42chr", "7f96e9xf"
TOKEN = f"af-{INSTALLATION}-{SERVICE}-0-1"
TIMES = ("intent_at", "submitted_at", "claimed_at", "started_at", "launched_at", "serving_at", "ready_at")
KEPT = (
    "token",
    "job_id",
    "node",
    "port",
    "generation",
    "digest",
    "failures",
    *TIMES,
    "closed_at",
    "outcome",
    "gone_at",
)


@pytest.fixture
def old(slurm_cluster: SlurmCluster, apptainer: str) -> Iterator[System]:
    """An installation as that release left it, its job running, its programs stopped."""
    folder = Path(tempfile.mkdtemp(prefix="af-test-"))
    system = System(folder, slurm_cluster, apptainer)
    try:
        _restore_database(system)
        _run_job(system, apptainer)
        yield system
    finally:
        system.close()
        shutil.rmtree(folder)


def _restore_database(system: System) -> None:
    state = system.folder / "state"
    state.mkdir(mode=0o700)
    (state / "installation.key").touch(mode=0o600)
    (state / "installation.key").write_bytes((RELEASE / "installation.key").read_bytes())
    with closing(sqlite3.connect(state / "ai-factory.db")) as connection:
        connection.executescript((RELEASE / "database.sql").read_text())


def _run_job(system: System, apptainer: str) -> None:
    """Submit the job as that release did, and note in its database what it had noted."""
    run_dir = system.folder / "run"
    folder = run_dir / INSTALLATION / SERVICE / TOKEN
    folder.mkdir(parents=True)
    for path in (run_dir, *folder.parents[:2], folder):
        path.chmod(0o700)
    asked = json.loads((RELEASE / "params.json").read_text())
    filled = json.dumps(asked | {"image_cache": str(run_dir / "images"), "apptainer": apptainer})
    (folder / "params.json").touch(mode=0o600)
    (folder / "params.json").write_text(filled)
    for name in ("launch.sh", "wrapper.pyz"):
        shutil.copy(RELEASE / name, run_dir)
    options = [f"--job-name={TOKEN}", "--mem=256M", "--time=10:00", "--no-requeue", "--dependency=singleton"]
    options += [f"--output={folder}/stdout.log", f"--error={folder}/stderr.log", f"--chdir={folder}"]
    script = [str(run_dir / "launch.sh"), str(folder), str(run_dir / "wrapper.pyz"), "python3"]
    job = int(system.slurm("sbatch", "--parsable", *options, *script))
    port = wait_for(lambda: _serving(folder), "the job serves", PATIENCE, lambda: _told(folder))
    node = system.slurm("squeue", "-h", "-j", str(job), "-o", "%B").strip()
    now = time.time()
    given = {**dict.fromkeys(TIMES, now), "ends_at": now + 600, "job_id": job, "node": node, "port": port}
    for name, value in given.items():
        system.sql(f"UPDATE attempts SET {name} = ?", value)
    system.sql("UPDATE endpoints SET port = ?", port)


def _serving(folder: Path) -> int | None:
    path = folder / "state.json"
    state = json.loads(path.read_text()) if path.exists() else {}
    return int(state["port"]) if state.get("step") == "serving" else None


def _told(folder: Path) -> str:
    names = ("stderr.log", "stdout.log", "state.json", "exit.json")
    return "\n".join((folder / name).read_text() for name in names if (folder / name).exists())


def refusal(system: System, *program: str) -> str:
    """Return what a program says that does not start."""
    command = [sys.executable, "-m", *program]
    done = subprocess.run(command, check=False, timeout=60, capture_output=True, text=True, cwd=system.folder)
    assert (done.returncode, done.stdout) == (3, "")
    assert "Traceback" not in done.stderr
    return done.stderr


def test_a_service_outlives_the_upgrade(old: System) -> None:
    programs = [("api.http", "--config", str(old.config)), ("controller", "--config", str(old.config), "run")]
    for program in programs:
        assert "has the schema 0002, needed is " in refusal(old, *program)
        assert "Run: ai-factory migrate" in refusal(old, *program)
    (job,) = old.running_of(SERVICE)
    (before,), events = old.attempts(SERVICE), len(old.sql("SELECT id FROM events"))

    old.migrate()
    old.start()
    old.wait_status(SERVICE, "running")
    assert old.prompt("chat", "hello")["success"] is True
    (epoch,) = old.sql("SELECT renewals FROM leases")[0]
    wait_for(lambda: old.sql("SELECT renewals FROM leases")[0][0] > epoch + 6, "the controller was at work for a while")
    assert [each["id"] for each in old.jobs("PENDING", "RUNNING", "COMPLETING")] == [job]
    (now,) = old.attempts(SERVICE)
    assert {name: now[name] for name in KEPT} == {name: before[name] for name in KEPT}
    assert [event["reason"] for event in old.sql("SELECT reason FROM events ORDER BY id")[events:]] == []

    old.delete(SERVICE)
    (closed,) = old.attempts(SERVICE)
    assert (closed["outcome"], closed["job_id"]) == ("Stopped", job)
    for name in ("api", "controller"):
        old.kill(name)
    old.sql("UPDATE alembic_version SET version_num = '9999'")
    for program in programs:
        assert "it was made by a newer one. Install that version, or restore a backup." in refusal(old, *program)


@pytest.fixture
def both(slurm_cluster: SlurmCluster, apptainer: str) -> Iterator[System]:
    """An installation without a database, and beside it the programs of the release before."""
    folder = Path(tempfile.mkdtemp(prefix="af-test-"))
    system = System(folder, slurm_cluster, apptainer)
    try:
        with tarfile.open(BEFORE / "programs.tar.xz") as archive:
            archive.extractall(folder / "before", filter="data")
        yield system
    finally:
        system.close()
        shutil.rmtree(folder)


def _run(system: System, release: Path | None, schema: str) -> None:
    """Have a release's programs take over, with its own recipes; `None`: this one's."""
    for name in ("api", "controller"):
        system.kill(name)
    system.release = None
    system.migrate(schema)
    system.configure(*_recipes(system, release))
    system.release = release
    system.start()


def _recipes(system: System, release: Path | None) -> tuple[str, str]:
    """Return the folder of recipes that is named in the configuration, and the one that is to be."""
    known = [str(root / "recipes") for root in (ROOT, system.folder / "before")]
    wanted = str((release or ROOT) / "recipes")
    return next(path for path in known if f'"{path}"' in system.config.read_text()), wanted


def _looked_after(system: System, *services: str) -> list[tuple[object, ...]]:
    """Let the programs be at work for a while; return the jobs that there are, and what is known of them."""
    for service in services:
        system.wait_status(service, "running")
        assert system.prompt(service, "hello")["success"] is True
    (before,) = system.sql("SELECT renewals FROM leases")[0]
    wait_for(lambda: system.sql("SELECT renewals FROM leases")[0][0] > before + 6, "the controller was at work")
    jobs = [(job["id"], job["name"]) for job in system.jobs()]
    return [*sorted(jobs), *(tuple(a[name] for name in KEPT) for service in services for a in system.attempts(service))]


def test_services_outlive_the_upgrade_and_going_back(both: System) -> None:
    """The release before starts one service, this one another; each takes over what the other has started."""
    release = both.folder / "before"
    both.release = release
    both.configure(*_recipes(both, release))
    both.migrate()
    both.start()
    first = both.create(name="first")
    started = _looked_after(both, first)

    _run(both, None, "head")
    assert _looked_after(both, first) == started
    second = both.create(name="second")
    both.wait_status(second, "running")
    assert [a["door"] is not None for key in (first, second) for a in both.attempts(key)] == [False, True]
    refused = refusal(both, "api.cli", "--config", str(both.config), "migrate", "--revision", BEFORE.name)
    assert "second" in refused, "its engine could not be reached by the release before"
    assert "first" not in refused
    both.delete(second)

    _run(both, release, BEFORE.name)
    assert _looked_after(both, first) == started
    _run(both, None, "head")
    assert _looked_after(both, first) == started
    both.delete(first)
    assert [a["outcome"] for key in (first, second) for a in both.attempts(key)] == ["Stopped"] * 2
