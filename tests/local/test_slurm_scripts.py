"""slurm-up, slurm-down and slurm-ctl."""

import os
import shutil
import socket
import stat
import subprocess
import time
from pathlib import Path

import pytest

from tests.local.conftest import processes_of

SMALL = {"NODES": 1, "DBD": 0, "GPUS": 0}


def slurm(folder, *command):
    environment = {**os.environ, "SLURM_CONF": str(folder / "etc" / "slurm.conf")}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=True).stdout


def pids(folder):
    return {file.name: file.read_text() for file in (folder / "run").glob("*.pid")}


def is_stopped(pid):
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


def kept_settings(folder):
    return dict(line.split("=", 1) for line in (folder / "settings").read_text().splitlines())


@pytest.fixture
def cluster(tmp_path, script):
    """A folder for a cluster, whose processes are gone after the test."""
    if not shutil.which("slurmctld", path=os.environ["PATH"] + ":/usr/sbin"):
        pytest.skip("there is no Slurm on this machine: deploy/local/slurm-up installs it")
    folder = tmp_path / "cluster"
    yield folder
    script("slurm-down", folder, "--wipe")
    assert not processes_of(folder)


@pytest.mark.cluster
def test_up_is_idempotent_and_down_leaves_nothing(cluster, script):
    up = script("slurm-up", cluster, NODES=2)
    assert up.returncode == 0, up.stderr
    first = pids(cluster)
    assert len(first) == 6

    assert script("slurm-up", cluster).returncode == 0
    assert pids(cluster) == first
    assert slurm(cluster, "sinfo", "-h", "-o", "%P %D").split() == ["main*", "2", "short", "2", "down", "1"]

    job = slurm(
        cluster, "sbatch", "--parsable", "--mem=50", "-o", "/dev/null", "--wrap", "sleep 3600 & sleep 3600"
    ).strip()
    end = time.monotonic() + 20
    while "sleep" not in processes_of(cluster).values():
        assert time.monotonic() < end, slurm(cluster, "scontrol", "show", "job", job)
        time.sleep(0.1)

    assert script("slurm-down", cluster).returncode == 0
    assert not processes_of(cluster)
    assert (cluster / "settings").exists()

    assert script("slurm-down", cluster, "--wipe").returncode == 0
    assert not cluster.exists()


@pytest.mark.cluster
def test_accounts_and_preemption(cluster, script):
    assert script("slurm-up", cluster, NODES=1).returncode == 0
    assert slurm(cluster, "sacctmgr", "-nP", "list", "qos", "high", "format=preempt").strip() == "low,lowcancel"
    user = slurm(cluster, "id", "-un").strip()
    assert slurm(cluster, "sacctmgr", "-nP", "list", "user", user, "format=defaultaccount").strip() == "local"


@pytest.mark.cluster
def test_changed_settings_take_effect_and_are_kept(cluster, script):
    assert script("slurm-up", cluster, **SMALL).returncode == 0
    assert script("slurm-up", cluster, NODES=2, MINJOBAGE=7).returncode == 0
    assert script("slurm-up", cluster).returncode == 0
    assert slurm(cluster, "sinfo", "-h", "-p", "main", "-o", "%D").strip() == "2"
    assert "MinJobAge               = 7 sec" in slurm(cluster, "scontrol", "show", "config")


@pytest.mark.cluster
def test_taken_ports_are_avoided(cluster, script):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        up = script("slurm-up", cluster, PORT=port - 5, **SMALL)
        assert up.returncode == 0, up.stderr
        assert f"ports from {port - 5} on are taken" in up.stderr
        assert int(kept_settings(cluster)["PORT"]) != port - 5


@pytest.mark.cluster
def test_one_daemon_paused_killed_and_started(cluster, script):
    assert script("slurm-up", cluster, **SMALL).returncode == 0

    def ctl(*command):
        done = script("slurm-ctl", cluster, *command)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def wait_until(name, stopped):
        """A signal that is sent has not yet been heeded."""
        deadline = time.monotonic() + 60
        while is_stopped(ctl("pid", name)) != stopped:
            assert time.monotonic() < deadline, f"{name} is {'not ' * stopped}stopped after 60 s"
            time.sleep(0.05)

    ctl("pause", "slurmctld")
    wait_until("slurmctld", stopped=True)
    ctl("continue", "slurmctld")
    wait_until("slurmctld", stopped=False)
    for daemon in ("slurmctld", "slurmd-node1", "munged"):
        before = ctl("pid", daemon)
        ctl("kill", daemon)
        assert script("slurm-ctl", cluster, "pid", daemon).returncode == 1
        ctl("start", daemon)
        assert ctl("pid", daemon) != before
        ctl("stop", daemon)
        ctl("start", daemon)
    assert slurm(cluster, "squeue", "-h") == ""

    ctl("pause", "slurmctld")
    assert script("slurm-up", cluster).returncode == 0
    wait_until("slurmctld", stopped=False)

    for daemon in ("slurmctld", "slurmd-node1"):
        ctl("pause", daemon)  # and the end still comes
    assert script("slurm-down", cluster).returncode == 0


@pytest.mark.cluster
def test_in_a_deep_folder_the_sockets_lie_in_a_short_private_one(tmp_path, script):
    folder = tmp_path.joinpath(*["a-rather-long-name"] * 6)
    up = script("slurm-up", folder, **SMALL)
    try:
        assert up.returncode == 0, up.stderr
        environment = (folder / "env").read_text()
        munge = Path(environment.partition("MUNGE_SOCKET=")[2].strip())
        assert len(str(munge)) < 60
        assert stat.S_IMODE(munge.parent.stat().st_mode) == 0o700
        assert slurm(folder, "srun", "--mem=50", "echo", "here").strip() == "here"
    finally:
        script("slurm-down", folder, "--wipe")
    assert not munge.parent.exists()
    assert not processes_of(folder)


def test_down_spares_whom_it_did_not_start(tmp_path, script):
    (tmp_path / "run").mkdir()
    (tmp_path / "settings").write_text("NODES=1\nDBD=0\n")
    with subprocess.Popen(["sleep", "60"]) as other:
        (tmp_path / "run" / "slurmctld.pid").write_text(f"{other.pid}\n")
        try:
            assert script("slurm-down", tmp_path).returncode == 0
            assert other.poll() is None
        finally:
            other.kill()


def test_wipe_removes_only_a_cluster(tmp_path, script):
    (tmp_path / "letter").write_text("mine")
    assert script("slurm-down", tmp_path, "--wipe").returncode == 0
    assert (tmp_path / "letter").exists()


@pytest.mark.parametrize(
    "name", ["slurm-up", "slurm-down", "slurm-ctl", "install-apptainer", "install-vllm", "make-model"]
)
def test_usage(name, script):
    done = script(name)
    assert done.returncode == 1
    assert f"usage: {name}" in done.stderr


def test_a_folder_with_a_blank_is_refused(tmp_path, script):
    done = script("slurm-up", tmp_path / "my cluster")
    assert done.returncode == 1
    assert "why:  Slurm's configuration takes no blanks" in done.stderr
