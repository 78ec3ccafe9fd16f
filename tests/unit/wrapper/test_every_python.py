"""The whole life of a job under every Python of this machine that a node may have, as Slurm starts it."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from urllib.request import urlopen

import pytest

from api.contract.job.tls import WATCH
from controller.bundle import launch_script
from tests.pythons import Python, find, missing

from .doors import AUTHORITY, PORT, SOCKET, context, door, kill_at_one_blow, knock, refused
from .doors import ENGINE as DOOR_ENGINE
from .jobs import ENGINE, Job, alive, running, until

APPTAINER = """\
#!/bin/sh
# makes an image of anything, and a container of nothing
if [ "$1" = build ]; then echo image >"$2"; exit; fi
until [ "${1%.sif}" != "$1" ]; do shift; done
shift
exec "$@"
"""


HERE = find()


@pytest.fixture(params=HERE, ids=lambda python: python.name)
def any_python(request: pytest.FixtureRequest) -> str:
    python: Python = request.param
    return python.path


@pytest.fixture
def launch(any_python: str) -> Callable[..., None]:
    """As slurmd does: a copy of the script elsewhere, its arguments, and no PATH."""

    def start(job: Job, **environment: str) -> None:
        script = job.temporary.with_name("slurm_script")
        script.write_text(launch_script())
        argv = ["/bin/bash", str(script), str(job.folder), str(job.wrapper), any_python]
        job.start(argv=argv, **{"PATH": "", **environment})

    return start


def test_the_oldest_python_is_here() -> None:
    complaint = missing(HERE)
    if complaint and os.environ.get("CI"):
        pytest.fail(complaint, pytrace=False)
    if complaint:
        pytest.skip(complaint)


def test_an_engine_lives_from_its_claim_to_its_exit_record(
    job: Job, any_python: str, launch: Callable[..., None]
) -> None:
    """Prologue, claim, slot, volume, recipe's files, port, start, health, time warning, TERM, and what is left."""
    (job.folder / "prologue.sh").write_text("PROLOGUE=ran\nexport PROLOGUE\n")
    engine = [any_python, [{"runtime": "files"}, "/engine.py"], "--host", "127.0.0.1", "--port", [PORT]]
    job.write(
        command=[*engine, "--model", "m", "--startup-delay", "0.3"],
        listens=True,
        files={"engine.py": ENGINE.read_text()},
        volumes=[{"source": str(job.temporary.with_name("volume")), "target": "/data"}],
        check={"command": [any_python, "-c", "print('fine')"], "interval": 0.1, "timeout": 30.0},
        secret="5ec2e7",
        secret_variable="VLLM_API_KEY",
        token="af-i-s-0-1",
        log_bytes=1_000_000,
    )
    launch(job)
    serving = job.until_step("serving")
    until(lambda: job.state.get("health", {}).get("ok") is True)
    assert urlopen(f"http://127.0.0.1:{serving['port']}/health").status == 200
    assert job.read("claim")["job_id"] == 77
    assert not (job.folder / "params.json").exists(), "it held the secret"
    slot, volume = job.folder.with_name("af-i-s-0.slot"), job.temporary.with_name("volume")
    assert [(folder / "lock.1").exists() for folder in (slot, volume)] == [True, True]
    job.send(signal.SIGUSR1)
    until(lambda: job.state["detail"] == "time limit near")
    job.send(signal.SIGTERM)
    assert job.wait() == 0, job.stderr
    assert (job.state["step"], job.exit["code"], job.exit["reason"]) == ("draining", 0, "TimeLimit")
    assert [(folder / "lock.2").exists() for folder in (slot, volume)] == [True, True], "given back"
    assert list(job.temporary.iterdir()) == []
    assert job.stderr == ""


def test_an_engine_that_fails_says_why(job: Job, any_python: str, launch: Callable[..., None]) -> None:
    job.write(command=[any_python, "-c", "import os; raise ValueError('no model for ' + os.environ['WHO'])"],
              environment={"WHO": "me"})  # fmt: skip
    launch(job)
    assert job.wait() == 1
    assert (job.exit["code"], job.exit["reason"]) == (1, "EngineExited")
    assert job.exit["message"] == "ValueError: no model for me"
    assert list(job.temporary.iterdir()) == []


def test_a_stubborn_engine_and_what_it_started_are_killed(
    job: Job, any_python: str, launch: Callable[..., None]
) -> None:
    """In an image that is made first."""
    apptainer, cache = job.temporary.with_name("apptainer"), job.temporary.with_name("images")
    apptainer.write_text(APPTAINER)
    apptainer.chmod(0o755)
    body = (
        "import signal, subprocess, sys, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "subprocess.Popen(['sh', '-c', 'sleep 60; true', sys.argv[1]], start_new_session=True)\n"
        "print('up', flush=True); time.sleep(60)"
    )
    marker = f"stubborn-{os.getpid()}"
    image = {"source": None, "definition": "X"}
    parameters = {"image": image, "image_cache": str(cache), "apptainer": str(apptainer), "stop_grace": 0.3}
    job.write(command=[any_python, "-c", body, marker], **parameters)
    launch(job)
    until(lambda: job.stdout)
    pids = running(marker)
    assert len(pids) >= 2
    assert sorted(path.suffix for path in cache.iterdir()) == [".json", ".lock", ".seen", ".sif", ".used"]
    job.send(signal.SIGTERM)
    assert job.wait() == 137, job.stderr
    assert (job.exit["code"], job.exit["reason"]) == (137, "Terminated")
    assert "killed" in job.exit["message"]
    assert not any(alive(pid) for pid in pids)


def test_what_the_wrapper_leaves_behind_when_it_is_killed(
    job: Job, any_python: str, launch: Callable[..., None]
) -> None:
    job.write(command=[any_python, "-c", "import os, time; print(os.getpid(), flush=True); time.sleep(60)"])
    launch(job)
    engine = int(until(lambda: job.stdout))
    job.send(signal.SIGKILL)
    job.wait()
    until(lambda: not alive(engine))
    assert not job.exit


@pytest.mark.parametrize(
    ("at", "network"),
    [(SOCKET, "host"), (PORT, "host"), (PORT, "private")],
    ids=["socket", "loopback", "loopback of its own"],
)
def test_a_door_lets_in_who_may_and_tells_who_watches(
    job: Job, any_python: str, launch: Callable[..., None], at: object, network: str
) -> None:
    token = job.parameters["token"]
    job.write(command=[any_python, "-c", DOOR_ENGINE, [at]], listens=True, door=door(token), network=network)
    launch(job)
    with knock(job, context(protocol=WATCH)) as watcher:
        assert watcher.receive(1) == b"1"
        assert refused(lambda: knock(job, context(AUTHORITY.door(token))))
        with knock(job) as line:
            line.send(b"send 3\n")
            assert len(line.receive(3_000_000)) == 3_000_000
        with knock(job) as line:
            line.send(b"echo\n" + b"y" * 3_000_000 + b"\n")
            assert line.receive(3_000_001) == b"y" * 3_000_000 + b"\n"
        job.send(signal.SIGTERM)
        assert watcher.rest() == b""
    job.wait()
    assert (job.exit["reason"], job.stderr) == ("Terminated", "")
    assert list(job.temporary.iterdir()) == []


def test_killed_at_one_blow_nothing_is_left(job: Job, any_python: str, launch: Callable[..., None]) -> None:
    job.write(command=[any_python, "-c", DOOR_ENGINE, [SOCKET]], listens=True, door=door(job.parameters["token"]))
    launch(job)
    job.until_step("serving")
    engine = int(job.stdout.split()[0])
    doomed = kill_at_one_blow(job)
    job.wait()
    until(lambda: not any(alive(pid) for pid in (engine, *doomed)), 20.0)


def test_a_shim_without_a_python_behind_it_is_none(tmp_path: Path) -> None:
    for name, answer in (("python3.9", "pyenv: python3.9: command not found' >&2; exit '127"), ("python3.10", "3.10")):
        (tmp_path / name).write_text(f"#!/bin/sh\necho '{answer}'\n")
        (tmp_path / name).chmod(0o755)
    nothing = find({"PATH": str(tmp_path)}, tmp_path)
    assert [python.path for python in nothing] == [sys.executable]


def test_version_managers_are_looked_into(tmp_path: Path) -> None:
    """The newest of each minor version, wherever it lies; too old ones are none."""
    here = {"pyenv/versions/3.9.2": "3.9.2", "pyenv/versions/3.9.18": "3.9.18", "uv/python/x": "3.12.0",
            "home/.local/share/mise/installs/python/x": "3.8.18"}  # fmt: skip
    for folder, version in here.items():
        python = tmp_path / folder / "bin" / "python3"
        python.parent.mkdir(parents=True)
        python.write_text(f"#!/bin/sh\necho {version}\n")
        python.chmod(0o755)
    places = {"PYENV_ROOT": str(tmp_path / "pyenv"), "UV_PYTHON_INSTALL_DIR": str(tmp_path / "uv/python")}
    pythons = find(places, tmp_path / "home")
    found = {python.name for python in pythons if python.path != sys.executable}
    assert {"3.9.18"} <= found <= {"3.9.18", "3.12.0"}
    assert missing(pythons) == ""


def test_a_machine_without_the_oldest_is_told_so(tmp_path: Path) -> None:
    said = missing([], {"PATH": ""}, tmp_path)
    assert "no Python 3.9" in said
    assert "pyenv install 3.9" in said
    assert str(tmp_path / ".pyenv/versions/*/bin") in said
