"""A private Slurm for the bench, and installations on it with the settings that they would have in earnest."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from api.contract.configuration import load
from api.contract.database import Database, migrate
from api.contract.settings import Settings
from tests.cluster.system import ROOT, System
from tests.slurm_cluster import TOOLS, SlurmCluster

CLUSTER = {"NODES": "4", "CPUS": "8", "MEM": "16000", "GPUS": "1", "MINJOBAGE": "30"}

SETTINGS = """
state_dir = "{folder}/state"
run_dir = "{folder}/run"
recipes = ["{root}/recipes"]
[api]
port = {port}
[slurm]
conf = "{conf}"
bin_dir = "{bin_dir}"
[recipe."simple/hello"]
container_def = ""
program = ["true"]
command = []
[recipe."inference/vllm_dummy"]
container_def = ""
health_check = {{ interval = 10 }}
[controller]
{controller}
"""
"""All at its default but the two recipes, which run on the node itself: `hello` ends at once."""

SHIM = """#!/bin/bash
began=$EPOCHREALTIME
{real} "$@"
code=$?
for word; do case $word in --job-name=*) echo "${{word#*=}} $began $EPOCHREALTIME" >>{log} ;; esac; done
exit $code
"""


@dataclass(frozen=True, slots=True)
class Submission:
    """One sbatch: when it was called and when it had returned, Unix seconds."""

    began: float
    ended: float


@dataclass(frozen=True, slots=True)
class Site:
    """A cluster whose sbatch is timed."""

    cluster: SlurmCluster
    folder: Path

    @property
    def bin_dir(self) -> Path:
        """The folder with the timing sbatch."""
        return self.folder / "bin"

    def submissions(self) -> dict[str, Submission]:
        """Return all that was submitted so far, by token."""
        log = self.folder / "sbatch.log"
        lines = log.read_text().splitlines() if log.exists() else []
        return {token: Submission(float(began), float(ended)) for token, began, ended in map(str.split, lines)}


@contextmanager
def slurm(folder: Path) -> Iterator[Site]:
    """Bring a cluster up, and down again."""
    cluster = SlurmCluster(folder / "slurm")
    try:
        subprocess.run([TOOLS / "slurm-up", cluster.folder], check=True, env=os.environ | CLUSTER, timeout=300)
        site = Site(cluster, folder)
        site.bin_dir.mkdir()
        shim = site.bin_dir / "sbatch"
        shim.write_text(SHIM.format(real=shutil.which("sbatch"), log=folder / "sbatch.log"))
        shim.chmod(0o755)
        yield site
    finally:
        command = [str(TOOLS / "slurm-down"), str(cluster.folder), "--wipe"]
        subprocess.run(command, check=False, timeout=120, capture_output=True)


class Installation(System):
    """One installation in a folder of its own, its database made."""

    def __init__(
        self, folder: Path, cluster: SlurmCluster, *, bin_dir: Path | None = None, controller: str = ""
    ) -> None:
        folder.mkdir()
        super().__init__(folder, cluster, "apptainer")
        text = SETTINGS.format(
            folder=folder, root=ROOT, port=self.port, conf=cluster.conf, bin_dir=bin_dir or "", controller=controller
        )
        self.config.write_text(text)
        asyncio.run(_migrate(self.database_url))

    @property
    def database_url(self) -> str:
        """Where its database is."""
        return f"sqlite:///{self.folder / 'state' / 'ai-factory.db'}"

    @property
    def settings(self) -> Settings:
        """Return its settings as the programs read them."""
        return load(config=self.config, environ={"HOME": str(self.folder)})

    def pid(self, name: str) -> int:
        """Return the process id of a program."""
        return self._programs[name].pid

    def end(self) -> None:
        """End the programs, whatever is left on the cluster."""
        for name in list(self._programs):
            self.kill(name)
        self.client.close()


async def _migrate(url: str) -> None:
    database = Database(url)
    try:
        await migrate(database)
    finally:
        await database.close()
