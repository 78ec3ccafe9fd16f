"""A maintenance is to come: a service that may be shortened serves until then, and is told why; others wait."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.engines import RECIPE, Journal
from tests.cluster.system import System, running, wait_for
from tests.slurm_cluster import SlurmCluster

pytestmark = pytest.mark.cluster

BEGINS_IN = 360
"""Seconds."""
LIMIT = 30
LEAST = 2
"""Minutes."""


@pytest.fixture(scope="module")
def system(slurm_cluster: SlurmCluster) -> Iterator[System]:
    """An installation whose engines need no container."""
    folder = Path(tempfile.mkdtemp(prefix="af-test-"))
    system = System(folder, slurm_cluster, "apptainer")
    Journal(system)
    with running(system):
        yield system
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def begins_at(system: System) -> Iterator[int]:
    """Reserve all nodes for a maintenance; give when it begins (Unix seconds)."""
    system.slurm(
        "scontrol", "create", "reservation", "ReservationName=maintenance", f"StartTime=now+{BEGINS_IN}",
        "Duration=60", "Users=root", "Nodes=ALL", "Flags=MAINT,IGNORE_JOBS",
    )  # fmt: skip
    try:
        told = dict(word.split("=", 1) for word in system.slurm("scontrol", "show", "res", "-o").split() if "=" in word)
        yield int(system.slurm("date", "-d", told["StartTime"], "+%s"))
    finally:
        system.slurm("scontrol", "delete", "ReservationName=maintenance")


def progressing(system: System, key: str) -> str:
    """Return what is said of how far a service is; empty until something is."""
    conditions = system.service(key)["conditions"]
    return "".join(c["message"] for c in conditions if c["type"] == "Progressing")


def attempt_of(system: System, key: str) -> dict[str, Any]:
    """Return the one attempt of a service, as it is recorded."""
    (row,) = system.attempts(key)
    return dict(row)


def test_it_serves_for_what_is_left_before_the_maintenance(system: System, begins_at: int) -> None:
    key = system.create(RECIPE, resources={"time_limit": LIMIT, "time_min": LEAST})
    system.wait_status(key, "running")
    row = attempt_of(system, key)
    lasts = (row["ends_at"] - row["started_at"]) / 60
    assert LEAST < lasts <= BEGINS_IN / 60 - 1, f"{lasts} minutes of {LIMIT}"
    assert begins_at - 180 < row["ends_at"] <= begins_at, "it has nearly all that is left"
    events = system.sql("SELECT message FROM events WHERE service_id = ? AND reason = 'Shortened'", key)
    assert ["so that it ends before the maintenance that begins at" in event[0] for event in events] == [True]


def test_what_may_not_be_shortened_is_told_until_when_it_waits(system: System, begins_at: int) -> None:
    key = system.create(RECIPE, resources={"time_limit": LIMIT})
    wait_for(
        lambda: "so it waits until that ends" in progressing(system, key), "it waits", story=lambda: system.story(key)
    )
    assert "resources.time_min" in progressing(system, key)
    short = system.create(RECIPE, resources={"time_limit": LIMIT, "time_min": LIMIT - 1})
    wait_for(lambda: "less than resources.time_min (29 min)" in progressing(system, short), "it waits",
             story=lambda: system.story(short))  # fmt: skip
    assert {attempt_of(system, each)["started_at"] for each in (key, short)} == {None}
