"""A site whose nodes have addresses that the controller's host does not know, or can't reach."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest

from tests.cluster.system import System, wait_for
from tests.sites.conftest import site

SECONDS = 60.0
"""Within which it must be said; on a busy machine."""


@pytest.fixture(scope="module")
def system(apptainer: str) -> Iterator[System]:
    with site(apptainer) as system:
        system.kill("controller")
        folder = system.folder / "bin"
        folder.mkdir()
        real = subprocess.run(["which", "sinfo"], check=True, capture_output=True, text=True).stdout.strip()
        sinfo = folder / "sinfo"
        sinfo.write_text(f'#!/bin/sh\n{real} "$@" | sed "s/127.0.0.1/$(cat {system.folder}/address)/"\n')
        sinfo.chmod(0o755)
        system.configure("[slurm]", f'[slurm]\nbin_dir = "{folder}"')
        (system.folder / "address").write_text("127.0.0.1")
        system.start("controller")
        yield system


@pytest.mark.parametrize(
    ("address", "tried"),
    [
        ("no-such-node.invalid", "https://no-such-node.invalid:"),
        ("192.0.2.1", "https://192.0.2.1:"),
        ("", "https://node"),
    ],
)
def test_an_engine_out_of_reach_is_said_with_the_address_tried(system: System, address: str, tried: str) -> None:
    system.kill("controller")
    (system.folder / "address").write_text(address)
    system.start("controller")
    key = system.create()
    said = wait_for(lambda: told(system, key), "it is said", SECONDS, lambda: system.story(key))
    assert tried in said
    system.delete(key)


def told(system: System, key: str) -> str:
    """Return what the service says of it, once it does."""
    text = system.client.get(f"/api/v1/services/{key}").text
    return text if "can't be reached" in text else ""
