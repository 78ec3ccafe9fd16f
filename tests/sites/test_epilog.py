"""A site whose nodes work for minutes at the end of a job."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.cluster.system import System, wait_for
from tests.sites.conftest import site

SECONDS = 400


@pytest.fixture(scope="module")
def system(apptainer: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    folder = tmp_path_factory.mktemp("epilog")
    epilog, held = folder / "epilog", folder / "held"
    epilog.write_text(f"#!/bin/sh\nfor i in $(seq {SECONDS}); do [ -e {held} ] || exit 0; sleep 1; done\n")
    epilog.chmod(0o755)
    held.touch()
    with site(apptainer, EXTRA=f"Epilog={epilog}\nPrologEpilogTimeout={SECONDS * 2}") as system:
        yield system
        held.unlink()


def test_a_replica_is_replaced_while_its_node_is_still_at_the_epilog(system: System) -> None:
    key = system.create()
    system.wait_status(key, "running")
    first = system.open_attempt(key)
    system.slurm("scancel", str(first["job_id"]))
    began = time.monotonic()
    wait_for(
        lambda: any(a["ready_at"] and a["incarnation"] == 2 for a in system.attempts(key)),
        "it is replaced",
        SECONDS / 2,
        lambda: system.story(key),
    )
    print(f"replaced after {time.monotonic() - began:.1f} s")
    assert [job["state"] for job in system.jobs() if job["id"] == first["job_id"]] == ["COMPLETING"]
