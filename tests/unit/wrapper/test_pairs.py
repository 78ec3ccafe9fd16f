"""The handshake of every Python that a door may run on with every Python that comes to it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack

import pytest

from api.contract.job.tls import HTTP, WATCH, server_name
from tests.pages import ROOT
from tests.pythons import Python, find

from .doors import AUTHORITY, CLIENT, OTHER

TOKEN = "af-i-s-0-1"
OTHER_TOKEN = "af-i-s-0-2"
PYTHONS = find()

DOOR = """
import json, socket, ssl, sys
from api.contract.job.tls import Credentials, server_context
told = json.loads(sys.stdin.readline())
context = server_context(Credentials(*told["own"]), told["authority"])
listening = socket.create_server(("127.0.0.1", 0))
print(listening.getsockname()[1], flush=True)
while True:
    raw, _ = listening.accept()
    raw.settimeout(30)
    try:
        with context.wrap_socket(raw, server_side=True) as line:
            line.sendall((line.selected_alpn_protocol() + " " + line.recv(100).decode()).encode())
    except OSError:
        raw.close()
"""
CALLER = """
import json, socket, ssl, sys
from api.contract.job.tls import Credentials, client_context
told = json.loads(sys.stdin.readline())
for port in told["ports"]:
    answers = []
    for what in told["tries"]:
        context = client_context(Credentials(*what["own"]), told["authority"], what["protocol"])
        context.maximum_version = ssl.TLSVersion[what["version"]]
        try:
            raw = socket.create_connection(("127.0.0.1", port), timeout=30)
            with raw, context.wrap_socket(raw, server_hostname=what["name"]) as line:
                line.sendall(b"hello")
                answers.append(line.recv(100).decode())
        except OSError:
            answers.append("")
    print(json.dumps(answers), flush=True)
"""


def asked(own: object, name: str = TOKEN, protocol: str = HTTP, version: str = "TLSv1_3") -> dict[str, object]:
    return {"own": own, "name": server_name(name), "protocol": protocol, "version": version}


OURS, DOORS, THEIRS = ([each.certificate, each.key] for each in (CLIENT, AUTHORITY.door(TOKEN), OTHER.client("api")))
TRIES = {
    "ours": (asked(OURS), "http/1.1 hello"),
    "watches": (asked(OURS, protocol=WATCH), f"{WATCH} hello"),
    "by TLS 1.2": (asked(OURS, version="TLSv1_2"), "http/1.1 hello"),
    "looks for another": (asked(OURS, name=OTHER_TOKEN), ""),
    "a door's": (asked(DOORS), ""),
    "another installation's": (asked(THEIRS), ""),
}


def started(python: Python, program: str, told: Mapping[str, object]) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [python.path, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    assert process.stdin is not None
    process.stdin.write(json.dumps({"authority": AUTHORITY.certificate, **told}) + "\n")
    process.stdin.flush()
    return process


@pytest.fixture(scope="module")
def ports() -> Iterator[list[int]]:
    """One door of each Python."""
    with ExitStack() as stack:
        doors = [started(python, DOOR, {"own": DOORS}) for python in PYTHONS]
        for door in doors:
            stack.push(door)
            stack.callback(door.kill)
        yield [int(door.stdout.readline()) for door in doors if door.stdout is not None]


@pytest.mark.parametrize("caller", PYTHONS, ids=lambda python: python.name)
def test_every_pair_of_pythons_agrees_on_who_comes_in(ports: list[int], caller: Python) -> None:
    told = {"ports": ports, "tries": [what for what, _ in TRIES.values()]}
    with started(caller, CALLER, told) as process:
        said = process.communicate(timeout=300)[0].splitlines()
    found = {
        python.name: dict(zip(TRIES, json.loads(line), strict=True)) for python, line in zip(PYTHONS, said, strict=True)
    }
    assert found == {python.name: {how: right for how, (_, right) in TRIES.items()} for python in PYTHONS}
