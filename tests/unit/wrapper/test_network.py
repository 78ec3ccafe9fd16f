"""A network of a job's own: who reaches what in it, and what is done where the kernel allows none."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from api.contract.job import namespaces
from tests.another_user import UID
from tests.networks import REFUSED, require_networks

from .doors import ENGINE, PORT, SOCKET, door, kill_at_one_blow, knock, refused
from .jobs import Job, alive, until

CONNECT = "import socket, sys; socket.create_connection(('127.0.0.1', int(sys.argv[1])), 5).close()"
REFUSED_HALF_WAY = """
import os
from pathlib import Path
from api.contract.job import namespaces

def refuse(*words, **more):
    raise PermissionError(13, "Permission denied")

def own():
    return [os.readlink(f"/proc/self/ns/{name}") for name in ("user", "net")]

Path.write_text, before = refuse, own()
print(namespaces.leave_network(), own() == before)
"""


@pytest.fixture(autouse=True)
def networks() -> None:
    require_networks()


def reaches(port: int) -> bool:
    with socket.socket() as asking:
        return asking.connect_ex(("127.0.0.1", port)) == 0


def begin(job: Job, *under: str, script: str = ENGINE, at: object = PORT, **parameters: object) -> None:
    """Start a job with a door and a network of its own; its engine is told where to listen by `at`."""
    command = [sys.executable, "-c", script, [at]]
    told = {"command": command, "listens": True, "door": door(job.parameters["token"]), "network": "private"}
    job.write(**{**told, **parameters})
    job.start(argv=[*under, sys.executable, "-I", str(job.wrapper), str(job.folder)])


def port_of_engine(job: Job) -> int:
    return int(until(lambda: job.stdout.split()[1:2])[0])


@pytest.mark.parametrize(("network", "is_reached"), [("private", False), ("host", True)])
def test_nobody_but_its_door_reaches_an_engine_with_a_network_of_its_own(
    job: Job, network: str, is_reached: bool
) -> None:
    begin(job, network=network)
    job.until_step("serving")
    assert reaches(port_of_engine(job)) is is_reached
    assert not refused(lambda: knock(job))
    assert "network_refusal" not in job.state
    job.send(signal.SIGTERM)
    job.wait()
    assert (job.exit["reason"], job.stderr) == ("Terminated", "")


@pytest.mark.parametrize(("network", "code"), [("private", 1), ("host", 0)])
def test_it_reaches_nobody(job: Job, network: str, code: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as somebody:
        words = [sys.executable, "-c", CONNECT, str(somebody.getsockname()[1])]
        assert job.run_command(*words, network=network) == code


def test_a_health_check_is_run_beside_it(job: Job) -> None:
    begin(job, check={"command": [sys.executable, "-c", CONNECT, [PORT]], "interval": 1, "timeout": 30})
    assert until(lambda: job.state.get("health", {}))["ok"] is True


def test_where_the_kernel_allows_none_it_has_the_nodes_and_that_is_told(job: Job) -> None:
    begin(job, *REFUSED)
    assert job.until_step("serving")["network_refusal"] == "its limit of namespaces is reached"
    assert reaches(port_of_engine(job))
    assert not refused(lambda: knock(job))


def test_a_refusal_half_way_changes_nothing() -> None:
    said = subprocess.run([sys.executable, "-c", REFUSED_HALF_WAY], capture_output=True, text=True, check=True)
    assert said.stdout == "Permission denied True\n"


@pytest.mark.parametrize("at", [SOCKET, PORT], ids=["socket", "port"])
def test_killed_at_one_blow_nothing_is_left(job: Job, at: object) -> None:
    begin(job, at=at, script=f"import subprocess\nprint(subprocess.Popen(['sleep', '60']).pid, flush=True)\n{ENGINE}")
    job.until_step("serving")
    child, engine = (int(job.stdout.split()[index]) for index in (0, 1))
    doomed = kill_at_one_blow(job)
    job.wait()
    until(lambda: not any(alive(pid) for pid in (child, engine, *doomed)), 20.0)


def test_run_by_itself_it_tells_whether_there_is_one() -> None:
    tried = [
        subprocess.run([*under, sys.executable, namespaces.__file__], capture_output=True, text=True, check=False)
        for under in ((), REFUSED)
    ]
    assert [(one.returncode, one.stderr) for one in tried] == [(0, ""), (1, "its limit of namespaces is reached\n")]


def test_a_plain_user_has_one_too() -> None:
    if os.geteuid() != 0:
        pytest.skip("the other tests are a plain user's")
    source = Path(namespaces.__file__).read_text()
    python = shutil.which("python3", path="/usr/bin:/usr/local/bin")
    tried = subprocess.run([python or "python3", "-"], input=source, text=True, user=UID, group=UID, extra_groups=[],
                           cwd="/", env={}, capture_output=True, check=False)  # fmt: skip
    assert (tried.returncode, tried.stderr) == (0, "")
