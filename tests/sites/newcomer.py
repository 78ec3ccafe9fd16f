"""Somebody who has just written a configuration on a cluster, and asks doctor what is wrong."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.cluster.system import PATIENCE, wait_for
from tests.ports import free_port
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
SETTLES = 60.0
"""Seconds that a cluster may take to be as it was, once a command has mended it."""
DOCTORS_PATIENCE = str(PATIENCE * 10)
"""Who waited for that long would meet the test's own patience first."""

Found = dict[str, dict[str, Any]]


@dataclass
class Newcomer:
    """Somebody who has just written a configuration, and has not started anything yet."""

    folder: Path
    cluster: SlurmCluster
    settings: str

    @property
    def config(self) -> Path:
        """The configuration; doctor's last one stays."""
        return self.folder / "config.toml"

    @property
    def program(self) -> tuple[str, ...]:
        """The command line of `ai-factory`."""
        return sys.executable, "-m", "api.cli", "--config", str(self.config)

    def say(self, *words: str) -> tuple[int, str]:
        """Type any command; return its exit code, and what it says."""
        done = subprocess.run([*self.program, *words], capture_output=True, text=True, timeout=PATIENCE, check=False)
        return done.returncode, done.stdout + done.stderr

    def ask(self, *flags: str, more: str = "", under: tuple[str, ...] = (), **slurm: str) -> tuple[int, Found]:
        """Run doctor; return its exit code and results by name."""
        self.config.write_text(self.settings + more)
        settings = {f"AI_FACTORY_SLURM_{key.upper()}": value for key, value in slurm.items()}
        command = [*under, *self.program, "doctor", "-o", "json", *flags]
        done = subprocess.run(
            [*command, "--timeout", DOCTORS_PATIENCE],
            env=os.environ | settings, capture_output=True, text=True, timeout=PATIENCE, check=False,
        )  # fmt: skip
        assert done.stdout, done.stderr
        return done.returncode, {result["name"]: result for result in json.loads(done.stdout)}

    def well(self, *flags: str, **more: Any) -> None:
        """Require that nothing fails, once the cluster has taken in what was mended."""
        deadline = time.monotonic() + SETTLES
        while True:
            code, found = self.ask(*flags, **more)
            failed = [result for result in found.values() if result["state"] == "failed"]
            if not failed or time.monotonic() > deadline:
                break
        assert failed == []
        assert code == 0

    def culprit(self, *flags: str, **more: Any) -> tuple[str, str, str]:
        """Require that exactly one check fails; return its name, message and remedy."""
        code, found = self.ask(*flags, **more)
        failed = [result for result in found.values() if result["state"] == "failed"]
        assert len(failed) == 1, failed
        assert code == 1
        (result,) = failed
        return result["name"], result["message"], result["remedy"]

    def run(self, command: str) -> None:
        """Type a command of Slurm's."""
        self.cluster.run(*command.split())


@contextmanager
def munged() -> Iterator[Path]:
    """Run a munged with a key of its own; yield its socket."""
    with tempfile.TemporaryDirectory(prefix="af-munge-") as name:
        folder = Path(name)
        (folder / "key").write_bytes(os.urandom(128))
        (folder / "key").chmod(0o400)
        places = [f"--{one}-file={folder / one}" for one in ("key", "pid", "log", "seed")]
        path = f"{os.environ['PATH']}:/usr/sbin"
        program = shutil.which("munged", path=path) or "munged"
        process = subprocess.Popen([program, "--foreground", "--force", f"--socket={folder / 'socket'}", *places])
        try:
            wait_for((folder / "socket").exists, "munged listens")
            yield folder / "socket"
        finally:
            process.terminate()
            process.wait()


@contextmanager
def newcomer_on(folder: Path, apptainer: str) -> Iterator[Newcomer]:
    """Yield somebody with a cluster in this folder."""
    with cluster(folder / "slurm") as its_cluster:
        text = SETTINGS.format(folder=folder, port=free_port(), conf=its_cluster.conf, apptainer=apptainer)
        yield Newcomer(folder, its_cluster, text)
