"""Seeing why, on the whole system: explain, replay, metrics, health and the log's fields."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.cluster.system import PATIENCE, System, running, wait_for
from tests.ports import free_port
from tests.slurm_cluster import SlurmCluster

pytestmark = pytest.mark.cluster
METRICS = free_port()
MORE = f'metrics_port = {METRICS}\nlog_format = "json"\n'


@pytest.fixture(scope="module")
def system(slurm_cluster: SlurmCluster, apptainer: str) -> Iterator[System]:
    folder = Path(tempfile.mkdtemp(prefix="af-test-"))
    with running(System(folder, slurm_cluster, apptainer, MORE)) as system:
        yield system
    shutil.rmtree(folder)


def ask(system: System, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "api.cli", "--config", str(system.config), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, cwd=system.folder, check=False)


def metrics() -> dict[str, float]:
    text = httpx.get(f"http://127.0.0.1:{METRICS}/metrics", trust_env=False).text
    families = text_string_to_metric_families(text)
    return {"/".join([s.name, *s.labels.values()]): s.value for family in families for s in family.samples}


def test_why(system: System) -> None:
    key = system.create(name="why")
    system.wait_status(key, "running")
    attempt = system.open_attempt(key)

    told = ask(system, "explain", "why")
    assert told.returncode == 0, told.stderr
    for part in (
        "the leader: ",
        f"job {attempt['job_id']}: RUNNING",
        "step serving",
        "its engine answers",
        "do nothing",
    ):
        assert part in told.stdout, told.stdout

    found = metrics()
    assert found["ai_factory_leader"] == found["ai_factory_attempts/ready"] == 1
    assert found["ai_factory_slurm_calls_total/sbatch/ok"] >= 1
    assert found["ai_factory_actions_total/submit"] >= 1
    assert found["ai_factory_convergence_seconds_count/ready"] == 1
    assert 0 <= found["ai_factory_snapshot_age_seconds"] < 60
    health = httpx.get(f"http://127.0.0.1:{METRICS}/health", trust_env=False)
    assert (health.status_code, health.json()["status"]) == (200, "healthy")

    lines = [json.loads(line) for line in (system.folder / "controller.log").read_text().splitlines()]
    (sent,) = [line for line in lines if line["message"] == "sbatch returned" and line["service"] == key]
    assert (sent["token"], sent["job_id"], sent["generation"]) == (attempt["token"], attempt["job_id"], 1)
    assert sent["pass_id"].startswith(f"{sent['epoch']}.")

    log = system.folder / "state" / "plans.jsonl"
    assert system.secret_of(attempt["token"]) not in log.read_text()
    again = ask(system, "controller", "replay", str(log), "--service", "why")
    assert again.returncode == 0, again.stdout + again.stderr
    assert "none otherwise" in again.stderr

    system.cluster.control("stop", "slurmctld")
    silent = ask(system, "explain", key)
    assert silent.returncode == 0, silent.stderr
    assert "the cluster can't be read" in silent.stdout
    system.cluster.control("start", "slurmctld")
    system.kill("controller")
    wait_for(lambda: "no leader" in ask(system, "explain", key).stdout, "the controller is known to be down")
    system.start("controller")
    system.delete(key)
