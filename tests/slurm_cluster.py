"""A private Slurm cluster on this machine, shared by all tests of a run that ask for it."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

TOOLS = Path(__file__).parents[1] / "deploy" / "local"
APPTAINER = TOOLS.parents[1] / ".local" / "tools" / "apptainer" / "bin" / "apptainer"
"""Where `make test` installs it."""


class ClusterError(Exception):
    """A script of the cluster failed; the message is its own."""


@dataclass
class SlurmCluster:
    """A running cluster: where it lies, and power over its daemons."""

    folder: Path
    touched: bool = False
    """Whether somebody has used that power since it was last whole."""

    @property
    def conf(self) -> str:
        """Its slurm.conf."""
        return str(self.folder / "etc" / "slurm.conf")

    def control(self, verb: str, daemon: str) -> str:
        """Run `slurm-ctl`: stop, start, pause, continue or kill one daemon, or tell its pid."""
        self.touched = True
        return _run("slurm-ctl", self.folder, verb, daemon)

    def run(self, *command: str) -> str:
        """Run one of Slurm's own commands against it; return what it prints."""
        mine = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM", "SBATCH", "SQUEUE"))}
        mine["SLURM_CONF"] = self.conf
        return subprocess.run(command, env=mine, check=True, capture_output=True, text=True, timeout=60).stdout

    def repair(self) -> None:
        """Start again what a test has left stopped or paused."""
        _run("slurm-up", self.folder)
        self.touched = False

    def resume_nodes(self) -> list[str]:
        """Give nodes back that Slurm took out of service; return them with its reasons."""
        lines = self.run("sinfo", "-h", "-R", "-o", "%N %E").splitlines()
        for line in lines:
            self.run("scontrol", "update", f"NodeName={line.split()[0]}", "State=RESUME")
        return lines


def _run(script: str, *arguments: str | Path) -> str:
    command = [str(TOOLS / script), *map(str, arguments)]
    done = subprocess.run(command, check=False, timeout=150, capture_output=True, text=True)
    if done.returncode != 0:
        raise ClusterError(f"{' '.join(command)}: {done.stderr}")
    return done.stdout.strip()


@contextmanager
def bring_up(folder: Path, **settings: str) -> Iterator[SlurmCluster]:
    """Bring a cluster up in a folder, and take it down with all that runs on it."""
    if shutil.which("slurmctld", path=f"{os.environ['PATH']}:/usr/sbin:/sbin") is None:
        pytest.skip("there is no Slurm on this machine: `make test` installs it")
    try:
        subprocess.run([TOOLS / "slurm-up", folder], check=True, env=os.environ | settings, timeout=300)
        yield SlurmCluster(folder)
    finally:
        subprocess.run([TOOLS / "slurm-down", folder, "--wipe"], check=False, timeout=120, capture_output=True)


@pytest.fixture(scope="session")
def other_slurm_conf() -> str:
    """The slurm.conf of another cluster that the contract is to be tried on; empty: on one of this run's own."""
    return os.environ.get("AI_FACTORY_TEST_SLURM_CONF", "")


@pytest.fixture(scope="session")
def slurm_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SlurmCluster]:
    folder = tmp_path_factory.mktemp("slurm")
    with bring_up(folder, NODES="4", CPUS="8", MEM="4000", GPUS="2", MINJOBAGE="10") as cluster:
        yield cluster


@pytest.fixture(scope="session")
def apptainer() -> str:
    """The Apptainer that `make test` installed."""
    if not APPTAINER.exists():
        pytest.skip("there is no Apptainer in .local/tools: `make test` installs it")
    return str(APPTAINER)
