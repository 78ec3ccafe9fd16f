"""Sites whose programs come by modules: `module load apptainer` as the prologue, where `module` is a shell function."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.system import System
from tests.sites.conftest import site

LMOD = Path("/etc/profile.d/lmod.sh")
UNPACKED = Path(__file__).parents[2] / ".local" / "tools" / "environment-modules"
"""Environment Modules, whose package excludes Lmod's."""

LOGIN = """
. <(sed 's|/usr/lib/|{unpacked}/usr/lib/|g' {unpacked}/usr/share/modules/init/bash)
export -f module
env -0
"""

BARE = ("env", "-i", "PATH=/usr/bin:/bin", "HOME=/nonexistent", f"PYTHONPATH={Path(__file__).parents[2]}")
"""What a program of systemd's has, more or less: no login shell was there before."""


@pytest.fixture(scope="module")
def system(apptainer: str) -> Iterator[System]:
    """An installation whose jobs find Apptainer by a module alone, under a name that is on no PATH."""
    with tempfile.TemporaryDirectory(prefix="af-modules-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "bin").mkdir()
        program = folder / "bin" / "site-apptainer"
        program.write_text(f'#!/bin/sh\nexec {apptainer} "$@"\n')
        program.chmod(0o755)
        (folder / "files").mkdir()
        (folder / "files" / "apptainer").write_text(f"#%Module1.0\nprepend-path PATH {folder}/bin\n")
        with site("site-apptainer") as system:
            prologue = f"module use {folder}/files\\nmodule load apptainer"
            system.configure("command_timeout = 12\n", f'command_timeout = 12\nprologue = "{prologue}"\n')
            yield system


def restart(system: System, *under: str) -> None:
    system.kill("controller")
    system.start("controller", under=under)


def runs(system: System) -> None:
    key = system.create()
    system.wait_status(key, "running")
    assert [attempt["incarnation"] for attempt in system.attempts(key)] == [1]
    system.delete(key)


@pytest.mark.skipif(not LMOD.exists(), reason="there is no Lmod on this machine: `make sites` installs it")
def test_with_lmod_under_systemd(system: System) -> None:
    restart(system, *BARE)
    runs(system)


@pytest.mark.skipif(not UNPACKED.exists(), reason="there are no Environment Modules: `make sites` fetches them")
def test_with_environment_modules_from_a_login_shell(system: System) -> None:
    login = subprocess.run(
        ["bash", "-c", LOGIN.format(unpacked=UNPACKED)],
        env={"PATH": "/usr/bin:/bin"},
        check=True,
        capture_output=True,
        timeout=30,
    )
    given = [os.fsdecode(entry) for entry in login.stdout.split(b"\0") if entry]
    assert any(entry.startswith("BASH_FUNC_module") for entry in given)
    restart(system, *BARE, *given)
    runs(system)
