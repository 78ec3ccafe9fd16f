"""An engine that writes logs as fast as it can fills no disk, and its first and last words stay."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from tests.cluster.system import System, wait_for

pytestmark = pytest.mark.attacks

RECIPE = """
name: flood
category: evil
description: Writes as fast as it can.
version: 1.0.0
kind: job
program: [python3, "{files}/flood.py"]
files: [flood.py]
resources: {cpu: 1, memory: 256M, time_limit: 10}
restart: {max_failures: 1}
"""
SECONDS = 5
FLOOD = f"""
import os, time
end = time.monotonic() + {SECONDS}
block = b"".join(b"%d %s\\n" % (number, b"x" * 90) for number in range(1000))
written = 0
for descriptor in (1, 2):
    os.write(descriptor, b"first words\\n")
while time.monotonic() < end:
    written += os.write(1, block) + os.write(2, block)
for descriptor in (1, 2):
    os.write(descriptor, b"last words of %d\\n" % written)
"""
BOUND = 1_000_000
"""Bytes: log_megabytes of the installation."""
OTHERS = 200_000
"""Bytes of all else in a job's folder."""


def taken(folder: Path) -> int:
    """Return the bytes that a folder takes: a file of two names once, one that has no name any more not at all."""
    files: dict[int, int] = {}
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                found = (Path(parent) / name).stat()
            except FileNotFoundError:
                continue
            files[found.st_ino] = found.st_size
    return sum(files.values())


def test_logs_take_no_more_than_their_bound_and_keep_both_ends(system: System) -> None:
    folder = system.folder / "recipes" / "evil"
    folder.mkdir()
    (folder / "flood.yaml").write_text(RECIPE)
    (folder / "flood.py").write_text(FLOOD)
    key = system.create("evil/flood", name="flood")
    wait_for(lambda: system.attempts(key), "it begins", story=lambda: system.story(key))
    job_folder = system.job_folder(system.attempts(key)[0]["token"])
    over, largest = threading.Event(), [0]

    def sample() -> None:
        while not over.wait(0.005):
            largest[0] = max(largest[0], taken(job_folder))

    sampling = threading.Thread(target=sample)
    sampling.start()
    try:
        system.wait_status(key, "completed")
    finally:
        over.set()
        sampling.join()
    assert 4 * BOUND < largest[0] <= 6 * BOUND + OTHERS, "of two logs"
    for log in ("stdout.log", "stderr.log"):
        assert (job_folder / f"{log}.0").read_text().startswith("first words\n")
        last = (job_folder / log).read_text().splitlines()[-1]
        assert last.startswith("last words of ")
        assert int(last.split()[-1]) > 30 * BOUND, "it was a flood"
    assert "last words of" in system.client.get(f"/api/v1/services/{key}/logs").json()["logs"]
    system.delete(key)
