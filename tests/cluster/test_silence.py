"""Ten minutes of the controller's time without slurmctld: nothing is lost, nothing doubled, and conditions say so.

What the controller waits for it counts in its settings' graces. All are divided by `HASTE` here, so that ten minutes
of its time are half a minute; its paces (readings, lease) stay, for they only have to be fast enough.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from api.contract.settings import ControllerSettings
from tests.cluster.engines import RECIPE, Journal
from tests.cluster.lying_commands import Commands
from tests.cluster.system import PATIENCE, System, wait_for
from tests.slurm_cluster import SlurmCluster

pytestmark = [pytest.mark.cluster, pytest.mark.proof]

HASTE = 20
TEN_MINUTES = 600 / HASTE
GRACES = (
    "absence_grace",
    "accounting_grace",
    "doubt_grace",
    "backoff_first",
    "backoff_most",
    "quick_end",
    "steady_after",
    "resync",
)


@pytest.fixture(scope="module")
def installation(slurm_cluster: SlurmCluster) -> Iterator[tuple[System, Journal, Commands]]:
    folder = Path(tempfile.mkdtemp(prefix="af-test-"))
    system = System(folder, slurm_cluster, "apptainer")
    system.configure("command_timeout = 12", "command_timeout = 3")
    journal, commands = Journal(system), Commands(system)
    system.migrate()
    usual = ControllerSettings()
    try:
        system.start("api")
        system.start("controller", **{name: str(getattr(usual, name) / HASTE) for name in GRACES})
        yield system, journal, commands
    finally:
        system.close()
    shutil.rmtree(folder)


@pytest.mark.parametrize("silence", ["paused", "killed after its answer"])
def test_ten_minutes_without_slurmctld(installation: tuple[System, Journal, Commands], silence: str) -> None:
    system, journal, commands = installation
    kept, deleted = (system.create(RECIPE, model=model) for model in ("kept", "deleted"))
    for key in (kept, deleted):
        system.wait_status(key, "running")
    before = system.open_attempt(kept)
    # What slurmctld has not written down yet it forgets when it is killed, and the job with it.
    state, noted_at = system.cluster.folder / "state" / "job_state", time.time()
    system.slurm("scontrol", "update", f"JobId={before['job_id']}", "Comment=kept")
    wait_for(lambda: state.stat().st_mtime > noted_at, "slurmctld has written down that it runs")
    if silence == "killed after its answer":
        mark = commands.kill_after("sbatch")
        new = system.create(RECIPE, model="new")
        wait_for(lambda: not mark.exists(), "it is killed")
    else:
        system.cluster.control("pause", "slurmctld")
        new = system.create(RECIPE, model="new")
    began = time.monotonic()
    assert system.client.delete(f"/api/v1/services/{deleted}").status_code == 200
    for key in (kept, new):
        wait_for(lambda key=key: is_observed(system, key) == "Unknown", "the silence is told")
    assert system.prompt(kept, "anyone?")["success"] is True
    assert system.status(new) == "pending"
    wait_for(lambda: time.monotonic() > began + TEN_MINUTES, "ten minutes of its time are over")
    assert system.open_attempt(kept)["token"] == before["token"], "nothing is known, so nothing was done"
    system.cluster.control("continue" if silence == "paused" else "start", "slurmctld")
    for key in (kept, new):
        wait_for(
            lambda key=key: is_observed(system, key) == "True" and len(system.running_of(key)) == 1,
            "each runs once",
            PATIENCE,
            lambda key=key: system.story(key),
        )
        system.wait_status(key, "running")
    system.wait_gone(deleted)
    after = system.open_attempt(kept)
    assert (after["token"], after["job_id"]) == (before["token"], before["job_id"])
    assert system.running_of(new) == [system.open_attempt(new)["job_id"]]
    assert journal.doubles() == []
    sent = Counter(token for _, _, token in commands.calls("sbatch"))
    assert {token: count for token, count in sent.items() if count > 1} == {}
    for key in (kept, new):
        system.delete(key)


def is_observed(system: System, key: str) -> str:
    """Return the status of the condition that says whether the cluster can be read."""
    (found,) = [c["status"] for c in system.service(key)["conditions"] if c["type"] == "Observed"]
    return str(found)
