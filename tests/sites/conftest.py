"""Sites as there are: each file's cluster is set up as one kind of them, with an installation on it."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.cluster.system import PATIENCE, System, running
from tests.slurm_cluster import SlurmCluster, bring_up


@contextmanager
def site(apptainer: str, *, more: str = "", etc: Mapping[str, str] | None = None, **slurm: str) -> Iterator[System]:
    """Run an installation on a cluster of its own.

    Args:
        apptainer: The command of Apptainer, in the settings.
        more: Further lines of the configuration file.
        etc: Files that lie beside slurm.conf, such as `job_submit.lua`, by name.
        slurm: Settings of `slurm-up`; `EXTRA` has further lines of slurm.conf.
    """
    folder = Path(tempfile.mkdtemp(prefix="af-site-"))
    try:
        with (
            cluster(folder / "slurm", etc, **slurm) as its_cluster,
            running(System(folder, its_cluster, apptainer, more)) as system,
        ):
            yield system
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def command_line(system: System, *words: str) -> tuple[int, str]:
    """Run `ai-factory` as people do; return its exit code, and what it says."""
    argv = [sys.executable, "-m", "api.cli", "--config", str(system.config), *words]
    done = subprocess.run(argv, check=False, capture_output=True, text=True, timeout=PATIENCE, cwd=system.folder)
    return done.returncode, done.stdout + done.stderr


@contextmanager
def cluster(folder: Path, etc: Mapping[str, str] | None = None, **slurm: str) -> Iterator[SlurmCluster]:
    """Bring up a cluster with files of a site's own beside its slurm.conf."""
    (folder / "etc").mkdir(parents=True)
    for name, text in (etc or {}).items():
        (folder / "etc" / name).write_text(text, encoding="utf-8")
    with bring_up(
        folder, **{"NODES": "2", "CPUS": "4", "MEM": "4000", "GPUS": "2", "MINJOBAGE": "10"} | slurm
    ) as brought:
        yield brought
