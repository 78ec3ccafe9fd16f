"""A site whose commands complain beside right answers, and that hides nodes and partitions from its users."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from api.contract.launch import Resources, Submission
from controller.core.attempt import SendOutcome
from controller.ports import UnreadableError
from controller.slurm.environment import reading_environment, submitting_environment
from controller.slurm.runner import ProcessRunner
from controller.slurm.scheduler import SlurmScheduler
from tests.cluster.system import System
from tests.sites.conftest import site

USER = "games"
"""Of every distribution, and nobody's."""
PREFIX = "af-k3x9q2-"


@pytest.fixture(scope="module")
def system(apptainer: str) -> Iterator[System]:
    noise = "ControlMachine=nowhere\nPrivateData=jobs,nodes,partitions,reservations"
    with site(apptainer, EXTRA=noise, USERS=USER) as system:
        system.folder.chmod(0o711)  # a plain user's commands read slurm.conf in it
        yield system


@pytest.fixture
def scheduler(system: System, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SlurmScheduler:
    """Slurm as a plain user's controller asks it."""
    for name in ("squeue", "sinfo", "sacct", "sbatch"):
        real = subprocess.run(["which", name], check=True, capture_output=True, text=True).stdout.strip()
        file = tmp_path / name
        file.write_text(f'#!/bin/sh\nexec setpriv --reuid {USER} --regid {USER} --clear-groups {real} "$@"\n')
        file.chmod(0o755)
    uid = int(subprocess.run(["id", "-u", USER], check=True, capture_output=True, text=True).stdout)
    monkeypatch.setattr(os, "getuid", lambda: uid)
    given = (os.environ, system.cluster.conf, str(tmp_path))
    return SlurmScheduler(ProcessRunner(reading_environment(*given), submitting_environment(*given)), PREFIX)


def test_one_who_has_no_jobs_yet_gets_one(system: System) -> None:
    key = system.create()
    system.wait_status(key, "running")
    system.delete(key)


async def test_a_plain_user_s_listing_is_read_and_the_hidden_addresses_are_called_hidden(
    system: System, scheduler: SlurmScheduler
) -> None:
    script = system.folder / "job.sh"
    script.write_text("#!/bin/sh\nsleep 2\n")
    script.chmod(0o755)
    assert (await scheduler.list_jobs()).jobs == ()
    assert await scheduler.ended_jobs([999_999]) == {}
    job = Submission(
        token=f"{PREFIX}a-0-1",
        resources=Resources(memory_mb=100, time_limit=1),
        folder="/",
        script=str(script),
        comment="",
        warning=0,
        keeps_logs=False,
    )
    sent = await scheduler.submit(job)
    assert sent.outcome is SendOutcome.ACCEPTED, sent
    assert [job.job_id for job in (await scheduler.list_jobs()).jobs] == [sent.job_id]
    with pytest.raises(UnreadableError) as raised:
        await scheduler.addresses()
    assert raised.value.reason == "PermissionDenied"
