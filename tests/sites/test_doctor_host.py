"""What is wrong on the host, and between it and the nodes: doctor names it, and what it says, typed, makes it green."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest

from tests.ports import free_port
from tests.sites.newcomer import Newcomer, newcomer_on


@pytest.fixture(scope="module")
def newcomer(apptainer: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Newcomer]:
    with newcomer_on(tmp_path_factory.mktemp("doctor"), apptainer) as newcomer:
        yield newcomer


def mounted(*mount: str) -> tuple[str, ...]:
    """Return what runs a command in a mount namespace of its own, where this is mounted."""
    return ("unshare", "--mount", "sh", "-c", f'mount {" ".join(mount)} && exec "$@"', "sh")


def test_what_commands_complain_of_beside_right_answers_is_no_failure(newcomer: Newcomer) -> None:
    conf = newcomer.folder / "slurm" / "etc" / "noisy.conf"
    conf.write_text(f"{Path(newcomer.cluster.conf).read_text()}\nControlMachine=nowhere\n")
    said = subprocess.run(["squeue"], env=os.environ | {"SLURM_CONF": str(conf)}, capture_output=True, check=True)
    assert b"ControlMachine" in said.stderr
    newcomer.well(conf=str(conf))


@pytest.mark.parametrize("setting", ["state_dir", "run_dir"])
@pytest.mark.parametrize(
    ("options", "check", "words"),
    [
        ("ro", "{setting}", "can't be written: Read-only file system"),
        ("size=8m", "room in {setting}", "it is full"),
        ("size=64m", "room in {setting}", "has only 0.1 GB left"),
    ],
)
def test_a_folder_that_takes_nothing(
    newcomer: Newcomer, monkeypatch: pytest.MonkeyPatch, setting: str, options: str, check: str, words: str
) -> None:
    folder, other = newcomer.folder / "small", newcomer.folder / "another"
    for one in (folder, other):
        one.mkdir(mode=0o700, exist_ok=True)
    monkeypatch.setenv(f"AI_FACTORY_{setting.upper()}", str(folder))
    under = mounted("-t", "tmpfs", "-o", f"{options},mode=0700", "none", str(folder))
    name, message, remedy = newcomer.culprit("--no-job", under=under)
    assert (name, words in message) == (check.format(setting=setting), True), message
    assert re.search(rf"[Ss]et {setting} to (a|another) (shared )?folder", remedy)
    monkeypatch.setenv(f"AI_FACTORY_{setting.upper()}", str(other))
    newcomer.well("--no-job", under=under)


def test_a_path_that_is_no_whole_one(newcomer: Newcomer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(newcomer.folder)
    monkeypatch.setenv("AI_FACTORY_RUN_DIR", "run")
    code, said = newcomer.say("doctor")
    assert (code, "run_dir: run is a relative path" in said) == (3, True), said
    monkeypatch.setenv("AI_FACTORY_RUN_DIR", re.findall(r"write (/\S+/run)\.", said)[0])
    newcomer.well("--no-job")


class Stranger(BaseHTTPRequestHandler):
    """A program of somebody else's."""

    def do_GET(self) -> None:
        self.send_error(404)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def test_a_port_that_somebody_elses_program_has(newcomer: Newcomer, monkeypatch: pytest.MonkeyPatch) -> None:
    with HTTPServer(("127.0.0.1", 0), Stranger) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("AI_FACTORY_API_PORT", str(server.server_port))
        name, _, remedy = newcomer.culprit("--no-job")
        assert (name, "set api.port to another one" in remedy) == ("API", True)
        monkeypatch.setenv("AI_FACTORY_API_PORT", str(free_port()))
        newcomer.well("--no-job")
        server.shutdown()


def test_nodes_whose_addresses_this_host_does_not_know(newcomer: Newcomer) -> None:
    folder, hosts = newcomer.folder / "bin", newcomer.folder / "hosts"
    folder.mkdir()
    sinfo = folder / "sinfo"
    sinfo.write_text(f'#!/bin/sh\n{shutil.which("sinfo")} "$@" | sed s/127.0.0.1/node.invalid/\n')
    sinfo.chmod(0o755)
    name, message, remedy = newcomer.culprit(bin_dir=str(folder))
    assert (name, "does not know where the nodes are: node.invalid" in message) == ("ports of the nodes", True)
    unknown = re.findall(r"by DNS or /etc/hosts \(try: getent hosts (\S+)\)", remedy)[0]
    hosts.write_text(f"{Path('/etc/hosts').read_text()}\n127.0.0.1 {unknown}\n")
    newcomer.well(bin_dir=str(folder), under=mounted("--bind", str(hosts), "/etc/hosts"))
    sinfo.write_text(sinfo.read_text().replace("node.invalid", "192.0.2.1"))
    name, message, _ = newcomer.culprit(bin_dir=str(folder))
    assert (name, "does not reach the engines' ports: 192.0.2.1 port" in message) == ("ports of the nodes", True)


def test_nodes_without_a_python(newcomer: Newcomer) -> None:
    """All of the node's other programs are there, under a PATH of their own."""
    folder = newcomer.folder / "programs"
    folder.mkdir()
    for program in Path("/usr/bin").iterdir():
        if not program.name.startswith(("python", "platform-python")):
            (folder / program.name).symlink_to(program)
    broken = f"export PATH={folder}"
    name, message, remedy = newcomer.culprit(prologue=broken)
    assert (name, "no Python 3.9 or later" in message) == ("Python in jobs", True), message
    assert remedy.startswith("Set slurm.python to one that every node has, or load one by slurm.prologue")
    newcomer.well(prologue=broken, python="/usr/bin/python3")
    newcomer.well(prologue=f"{broken}:/usr/bin")


def test_a_database_that_is_away(newcomer: Newcomer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AI_FACTORY_DATABASE_URL", "postgresql://lab@127.0.0.1:1/ai_factory")
    name, message, remedy = newcomer.culprit("--no-job")
    assert (name, "can't be reached" in message, "database_url" in remedy) == ("database", True, True), remedy
    monkeypatch.delenv("AI_FACTORY_DATABASE_URL")
    newcomer.well("--no-job")


def test_a_mistake_in_the_changes_of_a_recipe(newcomer: Newcomer) -> None:
    broken = '\n[recipe."inference/vllm_dummy"]\nresources.cpus = 2\n'
    name, message, remedy = newcomer.culprit("--no-job", more=broken)
    assert (name, '[recipe."inference/vllm_dummy"]: resources.cpus' in message) == ("recipes", True), message
    code, said = newcomer.say(*remedy.rpartition("ai-factory ")[2].split())
    assert (code, "resources.cpus" in said) == (1, True)
    newcomer.well("--no-job", more=broken.replace("cpus", "cpu"))


@pytest.mark.parametrize("daemon", ["slurmctld", "munged"])
def test_a_daemon_that_is_away(newcomer: Newcomer, daemon: str) -> None:
    newcomer.cluster.control("stop", daemon)
    try:
        name, message, remedy = newcomer.culprit("--no-job")
    finally:
        newcomer.cluster.control("start", daemon)
    assert name == "Slurm answers"
    assert {"slurmctld": "scontrol ping", "munged": "munge"}[daemon] in message + remedy, remedy
    newcomer.well("--no-job")
