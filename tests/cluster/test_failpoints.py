"""The controller killed just before and just after each of its effects and commits, under a load that needs them all.

After each kill it is started again, and then exactly the wanted jobs run: the same ones as before where nothing was
to change, each replica once, none without an owner.
"""

from __future__ import annotations

import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from controller.failpoints import EFFECTS, POINTS
from tests.cluster.engines import RECIPE, Journal
from tests.cluster.matching import differences
from tests.cluster.system import PATIENCE, System, wait_for
from tests.slurm_cluster import SlurmCluster

pytestmark = pytest.mark.cluster

QUICK = {"fastest_reading": "0.5", "absence_grace": "2", "lease": "3"}


class Load:
    """Services at every stage of their life; each step moves them all on, so that all kinds of work are due."""

    def __init__(self, system: System) -> None:
        self.system = system
        self.kept = self._create(replicas=2)
        self.stages: list[str] = []
        self.wanted = {self.kept: 2}
        for _ in range(4):
            self.step()

    def step(self) -> None:
        """Create one, change the one before, scale the next, stop the next, delete the last."""
        created, *older = self.stages = [self._create(), *self.stages][:5]
        self.wanted[created] = 1
        for key, move in zip(older, (self._change, self._scale, self._stop, self._delete), strict=False):
            move(key)

    def create_to_shrink(self) -> None:
        """Create one of three replicas, and wait until all answer: only what is ready drains."""
        self.shrinking = self._create(replicas=3)
        self.wanted[self.shrinking] = 3
        wait_for(
            lambda: self.system.service(self.shrinking)["ready_replicas"] == 3,
            "three replicas are ready",
            PATIENCE,
            lambda: self.system.story(self.shrinking),
        )

    def create_kept_back(self) -> None:
        """Create one whose job could not end before a maintenance, but may be shortened; others end in an hour."""
        self.wanted[self._create(resources={"time_limit": 240, "time_min": 5})] = 1

    def shrink(self) -> None:
        """Scale that down by one."""
        self.wanted[self.shrinking] -= 1
        values = self.wanted[self.shrinking], self.shrinking
        self.system.sql("UPDATE services SET replicas = ? WHERE id = ?", *values)

    def _create(self, **config: Any) -> str:
        return self.system.create(RECIPE, **config)

    def _change(self, key: str) -> None:
        self.system.sql("UPDATE services SET config = json_set(config, '$.model', 'changed') WHERE id = ?", key)

    def _scale(self, key: str) -> None:
        self.system.sql("UPDATE services SET replicas = 2 WHERE id = ?", key)
        self.wanted[key] = 2

    def _stop(self, key: str) -> None:
        self.system.sql("UPDATE services SET desired_state = 'stopped' WHERE id = ?", key)
        self.wanted[key] = 0

    def _delete(self, key: str) -> None:
        assert self.system.client.delete(f"/api/v1/services/{key}").status_code == 200


@pytest.fixture(scope="module")
def journal_and_load(slurm_cluster: SlurmCluster) -> Iterator[tuple[Journal, Load]]:
    folder = Path(tempfile.mkdtemp(prefix="af-test-"))
    system = System(folder, slurm_cluster, "apptainer")
    journal = Journal(system)
    system.migrate()
    try:
        system.start("api")
        system.start("controller", **QUICK)
        yield journal, Load(system)
    finally:
        system.close()
    shutil.rmtree(folder)


@pytest.mark.parametrize("effect", EFFECTS)
def test_killed_before_and_after(
    journal_and_load: tuple[Journal, Load], effect: str, request: pytest.FixtureRequest
) -> None:
    journal, load = journal_and_load
    system = load.system
    if effect == "tell a door":
        load.create_to_shrink()
    if effect == "shorten":
        request.addfinalizer(reserved(system))
    settle(load)
    kept, noted = ids(system, load.kept), ids(system)
    for point in (f"before {effect}", f"after {effect}"):
        assert point in POINTS
        system.kill("controller")
        load.step()
        make_due(load, effect)
        system.start("controller", failpoint=point, **QUICK)
        if effect == "release the lease":
            settle(load)
            system.send("controller", signal.SIGTERM)
        system.wait_killed("controller")  # nothing else does it: a point that is not reached ends this test here
        noted |= {token: job for token, job in ids(system).items() if job is not None}
        system.start("controller", **QUICK)
    settle(load)
    after = ids(system)
    changed = {token: after.get(token) for token, job in noted.items() if job is not None and after.get(token) != job}
    assert changed == {}, "a job id that was written down is another now"
    assert ids(system, load.kept) == kept, "a service that nobody changed has other jobs"
    assert journal.doubles() == []


def make_due(load: Load, effect: str) -> None:
    """Bring about what the load alone does not need: the controller is down."""
    if effect == "revoke":  # an intent whose job was never sent
        load.system.start("controller", failpoint="before sbatch", **QUICK)
        load.system.wait_killed("controller")
    if effect == "scancel a stray":
        submit_late(load.system)
    if effect == "tell a door":
        load.shrink()
    if effect == "shorten":
        load.create_kept_back()


def reserved(system: System) -> Callable[[], object]:
    """Reserve all nodes for a maintenance that is to come; return what calls it off."""
    system.slurm(
        "scontrol", "create", "reservation", "ReservationName=maintenance", "StartTime=now+7200", "Duration=60",
        "Users=root", "Nodes=ALL", "Flags=MAINT,IGNORE_JOBS",
    )  # fmt: skip
    return lambda: system.slurm("scontrol", "delete", "ReservationName=maintenance")


def settle(load: Load) -> None:
    """Wait until the cluster is as wanted."""
    system = load.system
    wait_for(
        lambda: not differences(system, load.wanted),
        "the cluster is as wanted",
        PATIENCE,
        lambda: "\n".join([*differences(system, load.wanted), *(system.story(key) for key in load.wanted)]),
    )


def ids(system: System, key: str = "%") -> dict[str, int | None]:
    """Return the job ids of the attempts of one service, or of all, by token."""
    return {row[0]: row[1] for row in system.sql("SELECT token, job_id FROM attempts WHERE service_id LIKE ?", key)}


def submit_late(system: System) -> None:
    """Submit a job under a token that is long closed, as a request that hung in slurmctld would."""
    (token,) = system.sql("SELECT token FROM attempts WHERE gone_at IS NOT NULL ORDER BY gone_at LIMIT 1")[0]
    system.slurm("sbatch", f"--job-name={token}", "--output=/dev/null", "--time=5", "--wrap=sleep 300")
