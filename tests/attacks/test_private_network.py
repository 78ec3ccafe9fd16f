"""Engines that can listen on loopback alone: a neighbour reaches them in the node's network, and not in their own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.attacks.neighbour import Neighbour
from tests.cluster.processes import job, listening
from tests.cluster.system import System
from tests.networks import add_recipe, require_networks

pytestmark = pytest.mark.attacks

PROMPT = "a word for the engine alone"
CALLER = """
import socket, sys
for address in ("127.0.0.1", "::1"):
    try:
        peer = socket.create_connection((address, int(sys.argv[1])), timeout=10)
        peer.sendall(b"GET /health HTTP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\n\\r\\n")
        print("ANSWER", peer.recv(12), flush=True)
    except OSError as error:
        print("REFUSED", error.strerror, flush=True)
for pid in sys.argv[2:]:
    try:
        open(f"/proc/{pid}/ns/net").close()
        print("ENTERS", pid, flush=True)
    except OSError:
        pass
"""
"""`PORT PID…`: ask an engine on loopback, and look for a way into the networks of these processes (setns(2))."""


@pytest.fixture(params=["private", "host"])
def network(system: System, request: pytest.FixtureRequest) -> Iterator[tuple[str, str]]:
    """Whose network an engine has, and its service."""
    require_networks()
    key = system.create(add_recipe(system.folder / "recipes", request.param), name=request.param)
    system.wait_status(key, "running")
    yield request.param, key
    system.delete(key)


def test_a_neighbour_reaches_none_that_has_a_network_of_its_own(system: System, network: tuple[str, str]) -> None:
    which, key = network
    attempt = system.open_attempt(key)
    pids = sorted(job(system.folder / "run", attempt["token"]))
    ports = {port for _, _, port in listening(pids)}
    (own,) = ports - {attempt["port"]}
    assert PROMPT in system.prompt(key, PROMPT)["response"]
    said = Neighbour(CALLER, str(own), *map(str, pids)).wait()
    expected = "ANSWER b'HTTP/1.1 200'" if which == "host" else "REFUSED Connection refused"
    assert said == [expected, "REFUSED Connection refused"], "the engine listens on 127.0.0.1 alone"
    networks = {Path(f"/proc/{pid}/ns/net").readlink() for pid in (*pids, "self")}
    assert len(networks) == (2 if which == "private" else 1)
