"""What a neighbour has put where jobs and programs of the operator look: nothing of it is run, and it is said."""

from __future__ import annotations

import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from controller.bundle import bundle, file_name
from tests.attacks.neighbour import READER, UID, Neighbour
from tests.cluster.system import System, wait_for

pytestmark = pytest.mark.attacks

PLANTER = """
import os, sys, zipfile
run, wrapper, mark = sys.argv[1:]
os.umask(0)
os.makedirs(os.path.join(run, "lib"))
with zipfile.ZipFile(os.path.join(run, "lib", wrapper), "w") as archive:
    archive.writestr("__main__.py", f"open({mark!r}, 'w').close()")
os.chmod(run, 0o755)
"""
SWAPPER = """
import os, sys
mine, image = sys.argv[1:]
os.rename(mine, image)
print("SWAPPED", flush=True)
"""
PROGRAMS = {
    "API": ("api.http",),
    "controller": ("controller", "run"),
    "migrate": ("api.cli", "migrate"),
    "images": ("api.cli", "images", "prune"),
}


def end_of(system: System, program: str) -> tuple[int, str]:
    """Run a program that is to end; return its exit code and what it said."""
    module, *words = PROGRAMS[program]
    command = [sys.executable, "-m", module, "--config", str(system.config), *words]
    done = subprocess.run(command, check=False, timeout=60, capture_output=True, text=True, cwd=system.folder)
    return done.returncode, done.stdout + done.stderr


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def everybodys() -> Iterator[Path]:
    """A folder such as /tmp and /scratch are."""
    folder = Path(tempfile.mkdtemp(prefix="af-everybodys-"))
    folder.chmod(0o1777)
    yield folder
    shutil.rmtree(folder)


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_run_dir_that_a_neighbour_made_first_is_not_used(
    system: System, everybodys: Path, tmp_path: Path, program: str
) -> None:
    run, mark = everybodys / "run", everybodys / "mark"
    assert Neighbour(PLANTER, str(run), file_name(bundle()), str(mark)).wait() == []
    asking = System(tmp_path, system.cluster, "apptainer")
    asking.configure(f'run_dir = "{tmp_path}/run"', f'run_dir = "{run}"')
    code, said = end_of(asking, program)
    asking.client.close()
    assert code == 3
    assert f"{run} belongs to user {UID}" in said
    assert "Set run_dir to a new folder" in said
    assert not mark.exists()


def test_a_state_dir_that_others_could_read_is_closed(system: System) -> None:
    state = system.folder / "state"
    database = state / "ai-factory.db"
    system.kill("api")
    state.chmod(0o755)
    database.chmod(0o644)
    system.start("api")
    assert (mode(state), mode(database)) == (0o700, 0o600)
    assert "could be read by others" in (system.folder / "api.log").read_text()
    assert Neighbour(READER, str(database)).wait() == [f"REFUSED {database}", "DONE"]


def test_an_image_that_a_neighbour_swapped_is_not_run(system: System) -> None:
    """His is a good one, of the same programs: it would be run."""
    key = system.create(name="chat", model="dummy")
    system.wait_status(key, "running")
    before = system.open_attempt(key)
    run_dir = system.folder / "run"
    (image,) = (run_dir / "images").glob("*.sif")
    for folder, open_mode in ((system.folder, 0o755), (run_dir, 0o755), (image.parent, 0o777)):
        folder.chmod(open_mode)
    his = image.parent / "his"
    his.write_bytes(image.read_bytes() + b"\0")
    shutil.chown(his, UID, UID)
    assert Neighbour(SWAPPER, str(his), str(image)).wait() == ["SWAPPED"]

    system.slurm("scancel", str(before["job_id"]))

    def refused() -> str:
        return next((str(a["message"]) for a in system.attempts(key) if a["outcome"] == "ImageFailed"), "")

    wait_for(lambda: "is not run: " in refused(), "it is refused", story=lambda: system.story(key))
    assert not [a for a in system.attempts(key) if a["token"] != before["token"] and a["serving_at"]]
    code, said = end_of(system, "images")
    assert code == 3
    assert "may be written by others" in said

    image.parent.chmod(0o700)
    code, said = end_of(system, "images")
    assert (code, f"{image} belongs to user {UID}" in said) == (3, True)
    system.delete(key)
    image.unlink()
    heir = system.create(name="heir", model="dummy")
    system.wait_status(heir, "running")
    assert image.owner() == Path("/").owner(), "it was made anew"
    system.delete(heir)
