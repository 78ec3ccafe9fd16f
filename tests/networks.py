"""Processes with a network of their own, and processes that are refused one."""

from __future__ import annotations

import subprocess

import pytest

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
