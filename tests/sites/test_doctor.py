"""What is wrong at a site: doctor names the culprit and what to do, and that, typed as it says, makes it green."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.system import PATIENCE, free_port
from tests.sites.conftest import cluster
from tests.slurm_cluster import SlurmCluster

SETTINGS = """
state_dir = "{folder}/state"
run_dir = "{folder}/run"
[api]
port = {port}
[slurm]
conf = "{conf}"
[apptainer]
command = "{apptainer}"
"""
DOCTORS_PATIENCE = str(PATIENCE * 10)
"""Who waited for that long would meet the test's own patience first."""

Found = dict[str, dict[str, Any]]


@dataclass
class Newcomer:
    """Somebody who has just written a configuration, and has not started anything yet."""

    folder: Path
    cluster: SlurmCluster
    settings: str

    def ask(self, *flags: str, more: str = "", under: tuple[str, ...] = (), **slurm: str) -> tuple[int, Found]:
        """Run doctor; return its exit code and results by name."""
        config = self.folder / "config.toml"
        config.write_text(self.settings + more)
        settings = {f"AI_FACTORY_SLURM_{key.upper()}": value for key, value in slurm.items()}
        command = [*under, sys.executable, "-m", "api.cli", "--config", str(config), "doctor", "-o", "json", *flags]
        done = subprocess.run(
            [*command, "--timeout", DOCTORS_PATIENCE],
            env=os.environ | settings, capture_output=True, text=True, timeout=PATIENCE, check=False,
        )  # fmt: skip
        assert done.stdout, done.stderr
        return done.returncode, {result["name"]: result for result in json.loads(done.stdout)}

    def well(self, *flags: str, **more: Any) -> None:
        """Require that nothing fails."""
        code, found = self.ask(*flags, **more)
        assert [result for result in found.values() if result["state"] == "failed"] == []
        assert code == 0

    def culprit(self, *flags: str, **more: Any) -> tuple[str, str, str]:
        """Require that exactly one check fails; return its name, message and remedy."""
        code, found = self.ask(*flags, **more)
        (result,) = [result for result in found.values() if result["state"] == "failed"]
        assert code == 1
        return result["name"], result["message"], result["remedy"]

    def run(self, command: str) -> None:
        """Type a command of Slurm's."""
        self.cluster.run(*command.split())


@pytest.fixture(scope="module")
def newcomer(apptainer: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Newcomer]:
    folder = tmp_path_factory.mktemp("doctor")
    with cluster(folder / "slurm") as its_cluster:
        text = SETTINGS.format(folder=folder, port=free_port(), conf=its_cluster.conf, apptainer=apptainer)
        yield Newcomer(folder, its_cluster, text)


def test_before_the_first_start_a_healthy_site_is_green(newcomer: Newcomer) -> None:
    code, found = newcomer.ask()
    assert {name for name, result in found.items() if result["state"] == "failed"} == set()
    assert code == 0
    assert "has no tables yet" in found["database"]["message"]
    assert found["run_dir seen by jobs"]["state"] == "ok"
    assert not (newcomer.folder / "state" / "ai-factory.db").exists()


@pytest.mark.parametrize(
    ("broken", "whole", "words"),
    [
        ("AllowAccounts=root", "AllowAccounts=ALL", "main is not for the account local, but for root"),
        ("DenyAccounts=local", "DenyAccounts=", "main is not for the account local"),
        ("AllowQos=high", "AllowQos=ALL", "main is not for the QOS normal, but for high"),
        ("State=DOWN", "State=UP", "main is DOWN"),
        ("State=DRAIN", "State=UP", "main is DRAIN"),
        ("State=INACTIVE", "State=UP", "main is INACTIVE"),
        ("ReqResv=YES", "ReqResv=NO", "for jobs with a reservation"),
    ],
)
def test_a_partition_that_is_closed(newcomer: Newcomer, broken: str, whole: str, words: str) -> None:
    newcomer.run(f"scontrol update PartitionName=main {broken}")
    try:
        name, message, remedy = newcomer.culprit()
        assert (name, words in message) == ("partition is open", True), message
        ways = dict(re.findall(r"slurm\.(\w+) to one of: (\w+)", remedy))
        assert {"AllowAccounts=root": "account", "AllowQos=high": "qos"}.get(broken, "partition") in ways
        for setting, value in ways.items():
            newcomer.well("--no-job", **{setting: value})
    finally:
        newcomer.run(f"scontrol update PartitionName=main {whole}")


def test_a_partition_without_nodes(newcomer: Newcomer) -> None:
    newcomer.run("scontrol update NodeName=node[1-2] State=DRAIN Reason=broken")
    try:
        name, message, _ = newcomer.culprit()
        assert name == "partition is open"
        assert re.search(r"no node of the partition main is in service \(drain\w*, broken\)", message)
    finally:
        newcomer.run("scontrol update NodeName=node[1-2] State=RESUME")


def test_an_account_and_a_qos_that_are_not_this_users(newcomer: Newcomer) -> None:
    for setting in ("account", "qos"):
        name, message, remedy = newcomer.culprit(**{setting: "nope"})
        assert (name, "nope" in message) == ("account and QOS", True)
        value = re.findall(rf"Set slurm\.{setting} to one of: (\w+)", remedy)[0]
        newcomer.well("--no-job", **{setting: value})


def test_a_user_without_an_account(newcomer: Newcomer) -> None:
    newcomer.run("sacctmgr -i delete user name=root")
    try:
        name, message, remedy = newcomer.culprit(account="local")
        assert (name, "root has no account" in message) == ("account and QOS", True)
    finally:
        newcomer.run("sacctmgr -i add user root account=local")
    assert remedy == "Ask the site for: sacctmgr add user root account=local"
    newcomer.well(account="local")
    newcomer.run("sacctmgr -i modify user where name=root account=local set QOS+=capped,high")


def test_an_image_and_a_model_that_are_missing(newcomer: Newcomer) -> None:
    image, model, models = (newcomer.folder / name for name in ("vllm.sif", "model", "models"))
    more = f"""
[models]
folders = ["{models}"]
[recipe."inference/vllm_dummy"]
image = "{image}"
[recipe."inference/vllm_dummy".parameters.model]
default = "{model}"
"""
    name, message, remedy = newcomer.culprit(more=more)
    assert name == "recipes' files in jobs"
    assert f"{image} (image of inference/vllm_dummy)" in message
    assert f"{model} (model of inference/vllm_dummy)" in message
    assert f"{models} (models.folders)" in message
    assert "Put it where all nodes see it" in remedy
    image.touch()
    model.mkdir()
    models.mkdir()
    newcomer.well(more=more)


def test_a_folder_of_commands_that_is_missing(newcomer: Newcomer) -> None:
    name, message, remedy = newcomer.culprit("--no-job", bin_dir="/opt/slurm/nope")
    assert (name, remedy) == ("Slurm's commands", "Leave it out: they are on PATH.")
    assert "/opt/slurm/nope" in message


@pytest.mark.parametrize(
    ("resources", "key"),
    [("time_limit = 20", "time_limit"), ('memory = "64G"', "memory"), ("cpu = 9", "cpu"), ("gpu = 3", "gpu")],
)
def test_a_recipe_of_the_site_that_asks_for_too_much(newcomer: Newcomer, resources: str, key: str) -> None:
    table = '\n[recipe."inference/vllm_dummy"]\n'
    newcomer.run("scontrol update PartitionName=main MaxTime=10")
    small = "resources.time_limit = 5\n" if key != "time_limit" else ""
    try:
        name, message, remedy = newcomer.culprit("--no-job", more=f"{table}{small}resources.{resources}\n")
        assert name == "recipes' resources"
        assert "inference/vllm_dummy (" in message
        typed = re.findall(rf'Set (resources\.{key} = \S+) under \[recipe\."inference/vllm_dummy"\]', remedy)[0]
        newcomer.well("--no-job", more=f"{table}{small}{typed}\n")
    finally:
        newcomer.run("scontrol update PartitionName=main MaxTime=7-00:00:00")


def test_a_qos_that_gives_less_than_a_recipe_asks_for(newcomer: Newcomer) -> None:
    more = '\n[recipe."inference/vllm_dummy"]\nresources = {time_limit = 40}\n'
    name, message, remedy = newcomer.culprit("--no-job", more=more, qos="capped")
    assert (name, "the QOS capped allows 30 minutes" in message) == ("recipes' resources", True)
    assert "resources.time_limit = 30" in remedy


@pytest.mark.parametrize(
    ("prologue", "words"),
    [
        ("modul load apptainer || exit 1", "exit code 1 on {host}: .*modul: command not found"),
        ("modul load apptainer", "exit code 127 on {host}: .*modul: command not found"),
        ("exec true", "slurm.prologue did not come to its end: job .* ended as COMPLETED"),
        ("kill -9 $$", "slurm.prologue did not come to its end: job "),
    ],
)
def test_a_prologue_that_fails(newcomer: Newcomer, prologue: str, words: str) -> None:
    name, message, remedy = newcomer.culprit(prologue=prologue)
    assert name in ("prologue in jobs", "run_dir seen by jobs")
    assert re.search(words.format(host=os.uname().nodename), message), message
    assert remedy.startswith("Correct slurm.prologue")
    assert remedy.endswith(prologue)


def test_a_prologue_that_is_well_is_told(newcomer: Newcomer) -> None:
    _, found = newcomer.ask(prologue="echo loaded the module; cd /; set -eu")
    assert found["prologue in jobs"]["state"] == "ok"
    assert found["prologue in jobs"]["message"].endswith("loaded the module")
    assert found["Python in jobs"]["state"] == "ok"


@pytest.mark.parametrize("there", ["no folder", "another folder"])
def test_a_run_dir_that_nodes_do_not_share(newcomer: Newcomer, there: str) -> None:
    """Only here, in a mount namespace of doctor's own, another file system lies there."""
    run_dir = newcomer.folder / "run"
    if there == "another folder":
        (run_dir / "doctor").mkdir(mode=0o700, exist_ok=True)
    under = ("unshare", "--mount", "sh", "-c", f'mount -t tmpfs -o mode=0700 none {run_dir} && exec "$@"', "sh")
    name, message, remedy = newcomer.culprit(under=under, prologue="exit 1")
    assert name == "run_dir seen by jobs"
    assert "slurm_script" not in message
    assert ("is not the folder that it is here" if there == "another folder" else f"there is no {run_dir}") in message
    assert "shared folder" in remedy
    for left in run_dir.glob("doctor/*"):
        left.unlink()


def test_what_squeue_explains_is_not_waited_for(newcomer: Newcomer) -> None:
    """A QOS of one job at a time, which another one holds."""
    newcomer.cluster.run("sbatch", "--qos=capped", "--time=5", "--output=/dev/null", "--wrap=sleep 600")
    try:
        name, message, _ = newcomer.culprit(qos="capped")
        assert name == "run_dir seen by jobs"
        assert "can't start (QOSMaxJobsPerUserLimit), and was cancelled" in message
    finally:
        newcomer.run("scancel --user=root")


def test_ports_that_a_colleague_uses(newcomer: Newcomer) -> None:
    with ExitStack() as colleague:
        first = colleague.enter_context(socket.socket())
        first.bind(("", 0))
        first.listen()
        port = first.getsockname()[1]
        name, message, remedy = newcomer.culprit(port_range=f"{port},{port}")
        assert (name, f"all ports from {port} to {port} are taken" in message) == ("ports of the nodes", True)
        assert remedy.startswith("Set slurm.port_range")
        _, found = newcomer.ask(port_range=f"{port},{port + 50}")
        assert found["ports of the nodes"]["state"] == "ok"
        assert re.search(
            rf"of {port} to {port + 50}, \d+ are taken there: {port}", found["ports of the nodes"]["message"]
        )
    newcomer.well(port_range=f"{port},{port + 50}")
