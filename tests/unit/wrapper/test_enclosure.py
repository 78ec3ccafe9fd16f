"""A plain user's container: what mounts its image ends with the job, whoever is left to end it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from controller.wrapper import enclosure
from tests.networks import REFUSED

from .doors import ENGINE, SOCKET, door, kill_at_one_blow, own_processes
from .jobs import Job, alive, until
from .test_container import APPTAINER, DEFINITION

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(not Path(APPTAINER).exists(), reason="no Apptainer (deploy/local/install-apptainer)"),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user"),
]

UID = 60_000 + os.getpid() % 5_000
"""Nobody's, and another one for each of the tests that run at a time."""

PYTHON = shutil.which("python3", path="/usr/bin:/usr/local/bin") or "python3"
"""One that every user may run."""

AS_PLAIN_USER = (
    *("unshare", "--mount", "sh", "-ec"),
    f"""
    folder=$1; shift
    {{ cat /etc/passwd; echo plain:x:{UID}:{UID}::/:/bin/sh; }} >"$folder/passwd"
    mount --bind "$folder/passwd" /etc/passwd
    mount -t tmpfs none /mnt
    mknod -m 666 /mnt/fuse c 10 229
    mount --bind /mnt/fuse /dev/fuse
    umount -l /mnt
    exec setpriv --reuid {UID} --regid {UID} --clear-groups "$@" """,
    "sh",
)
"""`FOLDER COMMAND…`: be a user whom Apptainer knows, on a node where every user may use FUSE."""

SETUID = f"""\
#!/bin/sh
[ "$1" != buildcfg ] || exec echo APPTAINER_SUID_INSTALL=1
exec {APPTAINER} "$@"
"""
"""An Apptainer that says that it is installed setuid."""


@pytest.fixture
def begin(wrapper: Path) -> Iterator[Callable[[str], Job]]:
    """Start a plain user's job, with that Apptainer; it is returned once its engine serves."""
    folder = Path(tempfile.mkdtemp(prefix="af-test-"))
    folder.chmod(0o755)
    job = Job(folder / "job", Path(shutil.copy(wrapper, folder)), folder / "tmp")
    (folder / "thin.def").write_text(DEFINITION)
    command = [APPTAINER, "build", str(folder / "thin.sif"), str(folder / "thin.def")]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    (folder / "setuid").write_text(SETUID)
    (folder / "setuid").chmod(0o755)

    def start(apptainer: str) -> Job:
        job.write(
            apptainer={"plain": APPTAINER, "setuid": str(folder / "setuid")}[apptainer],
            image={"source": str(folder / "thin.sif"), "definition": None},
            binds=["/usr:/usr:ro"],
            command=["python3", [{"runtime": "files"}, "/engine.py"], [SOCKET]],
            files={"engine.py": ENGINE},
            listens=True,
            door=door("af-i-job-0-1"),
            token="af-i-job-0-1",
        )
        for path in (folder, job.folder, job.folder / "params.json", job.temporary):
            os.chown(path, UID, UID)
        job.start(argv=[*AS_PLAIN_USER, str(folder), PYTHON, "-I", str(job.wrapper), str(job.folder)])
        until(lambda: job.state.get("step") == "serving" or job.exit)
        assert job.exit == {}, (job.exit, job.stderr)
        return job

    yield start
    job.kill()
    shutil.rmtree(folder)


def processes() -> dict[int, str]:
    """Return the programs that the user runs."""
    found = {}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if path.stat().st_uid == UID and alive(int(path.name)):
                found[int(path.name)] = (path / "cmdline").read_text(errors="replace").split("\0")[0]
        except OSError:
            continue  # it has ended
    return found


@pytest.mark.parametrize("apart", [False, True], ids=["all at one blow", "guards, then the wrapper"])
def test_whatever_is_killed_nothing_is_left(begin: Callable[[str], Job], apart: bool) -> None:
    job = begin("plain")
    whole = processes()
    assert any("squashfuse" in program for program in whole.values()), whole
    if apart:
        for pid in set(own_processes(job)) - {job.process.pid if job.process else 0}:
            os.kill(pid, signal.SIGKILL)
        job.kill()
    else:
        kill_at_one_blow(job)
    until(lambda: not processes(), 20.0)


@pytest.mark.parametrize("apptainer", ["plain", "setuid"])
def test_it_ends_as_it_is_told(begin: Callable[[str], Job], apptainer: str) -> None:
    """One that is installed setuid mounts images as it does without us, and a guard ends what is left."""
    job = begin(apptainer)
    first = own_processes(job)[0]
    (mounts,) = (pid for pid, program in processes().items() if "squashfuse" in program)
    same = os.stat(f"/proc/{mounts}/ns/pid").st_ino == os.stat(f"/proc/{first}/ns/pid").st_ino  # noqa: PTH116
    assert same is (apptainer == "setuid")
    job.send(signal.SIGTERM)
    job.wait()
    assert (job.exit["reason"], job.exit["code"]) == ("Terminated", 143)
    until(lambda: not processes(), 20.0)


def without(of: str, code: str) -> str:
    """Return what this code prints where the kernel gives no namespace of a kind."""
    under = [word.replace("max_net_namespaces", f"max_{of}_namespaces") for word in REFUSED]
    return subprocess.run([*under, PYTHON, "-c", code], capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("of", ["pid", "mnt"])
def test_where_the_kernel_gives_none_there_is_none(of: str) -> None:
    code = f"from {enclosure.__name__} import kinds_for; print(kinds_for('apptainer'))"
    assert without(of, code) == "0\n"


NOT_STARTED = """
from pathlib import Path
from controller.wrapper.process import Child
try:
    Child(["true"], {}, Path("/"), namespaces=0x2002_0000)
except OSError as error:
    print(error.strerror)
"""


def test_where_the_kernel_changes_its_mind_it_is_not_started() -> None:
    assert without("pid", NOT_STARTED) == "it can't be given its namespaces or its guard\n"
