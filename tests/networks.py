"""Engines with a network of their own, and nodes that give them none."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.pages import ROOT

REFUSED = (
    *("unshare", "--user", "--map-root-user", "sh", "-c"),
    *('echo 0 >/proc/sys/user/max_net_namespaces && exec "$0" "$@"',),
)
"""Put before a command: the kernel gives it, and all that it starts, no network of its own."""


def require_networks() -> None:
    """Skip a test where the kernel does not allow what it is about."""
    tried = subprocess.run(["unshare", "--user", "--map-root-user", "--net", "true"], check=False, capture_output=True)
    if tried.returncode != 0:
        pytest.skip(f"no process has a network of its own here: {tried.stderr.decode()}")


def add_recipe(recipes: Path, network: str) -> str:
    """Make a recipe whose engine listens on a port of loopback, in a container; return its path."""
    shipped = (ROOT / "recipes" / "inference" / "vllm_dummy.yaml").read_text()
    heard = shipped.replace('  - --uds\n  - "{socket}"\n', '  - "--port={port}"\n')
    assert heard != shipped
    folder = recipes / "loopback"
    folder.mkdir(exist_ok=True)
    (recipes / "host.def").write_text((ROOT / "recipes" / "host.def").read_text())
    (folder / "vllm_dummy_engine.py").write_text((ROOT / "recipes" / "inference" / "vllm_dummy_engine.py").read_text())
    named = heard.replace("category: inference\n", "category: loopback\n").replace(
        "name: vllm_dummy\n", f"name: {network}\n"
    )
    (folder / f"{network}.yaml").write_text(f"{named}\nnetwork: {network}\n")
    return f"loopback/{network}"
