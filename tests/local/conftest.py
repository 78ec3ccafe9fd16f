"""What the tests of the scripts in deploy/ share."""

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ROOT / "deploy" / "local"


@pytest.fixture
def script():
    """Runs one script of deploy/local; returns what it printed and its exit code."""

    def run(name, *arguments, **settings):
        kept = {key: value for key, value in os.environ.items() if not key.startswith("SLURM")}
        return subprocess.run(
            [SCRIPTS / name, *arguments],
            env=kept | {key: str(value) for key, value in settings.items()},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    return run


def processes_of(folder):
    """The processes whose command line or environment names the folder, by id; not the dead that nobody has fetched."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            known = (process / "cmdline").read_bytes() + (process / "environ").read_bytes()
            status = (process / "status").read_text()
        except OSError:
            continue
        if os.fsencode(folder) in known and "State:\tZ" not in status and int(process.name) != os.getpid():
            found[int(process.name)] = (process / "comm").read_text().strip()
    return found
