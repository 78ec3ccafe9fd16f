"""Thousands of idle connections by another user: the operator is served, engines stay well, logs stay short."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.attacks.neighbour import IDLER, Neighbour
from tests.cluster.processes import memory
from tests.cluster.system import System, wait_for
from tests.ports import free_port

pytestmark = pytest.mark.attacks

CONNECTIONS = 2000
LOG_BYTES = 2_000_000
"""What the programs may write meanwhile; it was 109 MB."""
MEMORY = 1.5
"""Times the memory of a calm program."""


@pytest.fixture(scope="module")
def chat(system: System) -> Iterator[str]:
    key = system.create(name="chat", model="dummy")
    system.wait_status(key, "running")
    yield key
    system.delete(key)


def written(system: System) -> int:
    return sum((system.folder / f"{name}.log").stat().st_size for name in ("api", "controller"))


@pytest.mark.parametrize("how", ["idle", "slow"])
def test_the_operator_is_served_by_an_api_full_of_strangers(system: System, chat: str, how: str) -> None:
    calm, lines = memory(system.pid("api")), written(system)
    with Neighbour(IDLER, str(CONNECTIONS), str(system.port), how) as idler:
        wait_for(lambda: idler.said("HELD"), "he has tried")
        for _ in range(20):
            began = time.monotonic()
            assert system.prompt(chat, "hello")["success"] is True
            assert time.monotonic() - began < 10
        assert memory(system.pid("api")) < MEMORY * calm
    assert written(system) - lines < LOG_BYTES


def test_engines_stay_well_while_strangers_sit_at_the_controllers_port(system: System, chat: str) -> None:
    before, lines = system.open_attempt(chat)["token"], written(system)
    port = metrics_port(system)
    at_work(system)
    calm = memory(system.pid("controller"))
    with Neighbour(IDLER, str(CONNECTIONS), str(port), "idle") as idler:
        wait_for(lambda: idler.said("HELD"), "he has tried")
        at_work(system)
        other = system.create(name="other", model="dummy")
        system.wait_status(other, "running")
        assert memory(system.pid("controller")) < MEMORY * calm
    system.delete(other)
    assert system.open_attempt(chat)["token"] == before
    assert system.status(chat) == "running"
    assert written(system) - lines < LOG_BYTES


def at_work(system: System) -> None:
    """Wait until the controller has been at work for a while."""
    (before,) = system.sql("SELECT renewals FROM leases")[0]
    wait_for(lambda: system.sql("SELECT renewals FROM leases")[0][0] > before + 12, "the controller is at work")


def metrics_port(system: System) -> int:
    """Have the controller listen on a port of its own, if it does not yet."""
    text = system.config.read_text()
    if "metrics_port" not in text:
        port = free_port()
        system.kill("controller")
        system.configure("[controller]\n", f"[controller]\nmetrics_port = {port}\n")
        system.start("controller")
        return port
    return int(text.partition("metrics_port = ")[2].split()[0])
