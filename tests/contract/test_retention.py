"""What is old is cleared away, on both databases: no more, and never what may still be needed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from backends import Backend

from api.contract.database import Database
from api.contract.job.folder import PARAMETERS
from controller import retention
from controller.core.jobs import Job, JobPhase, Snapshot
from controller.ports import DeposedError, Term
from controller.retention import Retention
from controller.untaken import UntakenParameters

NOW, KEEP = 1_000_000.0, 1000.0
OLD, NEW = NOW - KEEP - 1, NOW - KEEP + 1
TERM = Term(epoch=3, began_at=0.0)


class Clock:
    def now(self) -> float:
        return NOW


class Site:
    """A database and the folders of its jobs."""

    def __init__(self, backend: Backend, database: Database, jobs: Path) -> None:
        self.backend = backend
        self.jobs = jobs
        self._database = database

    async def sweep(self, *alive: str) -> None:
        jobs = {t: (Job(job_id=1, token=t, phase=JobPhase.RUNNING, state="RUNNING"),) for t in alive}
        await self.retention().sweep(Snapshot(sequence=1, began_at=NOW, jobs=jobs))

    def retention(self, *, keep_month: bool = False) -> Retention:
        return Retention(TERM, self._database, self.jobs, KEEP, Clock(), keep_month=keep_month)

    def untaken(self) -> UntakenParameters:
        return UntakenParameters(self._database, self.jobs)

    async def service(self, key: str, deleted_at: float | None = None) -> None:
        await self.backend.run(f"INSERT INTO services (id, recipe_name) VALUES ('{key}', 'simple/hello')")
        if deleted_at is not None:
            await self.backend.run(f"UPDATE services SET deletion_requested_at = {deleted_at} WHERE id = '{key}'")

    async def attempt(
        self, key: str, incarnation: int, gone_at: float | None, replica: int = 0, lane: str = "main"
    ) -> str:
        token = f"af-i-{key}-{replica}-{incarnation}"
        closed = f"1.0, 'Failed', {gone_at}" if gone_at is not None else "NULL, NULL, NULL"
        await self.backend.run(
            "INSERT INTO attempts (token, service_id, replica, incarnation, lane, generation, digest, failures,"
            " intent_at, message, closed_at, outcome, gone_at)"
            f" VALUES ('{token}', '{key}', {replica}, {incarnation}, '{lane}', 1, 'd', 0, 1.0, '', {closed})"
        )
        return token

    async def events(self, key: str, *times: float) -> None:
        for at in times:
            await self.backend.run(
                "INSERT INTO events (service_id, type, reason, message, count, first_at, last_at)"
                f" VALUES ('{key}', 'Normal', 'R', 'm', 1, 1.0, {at})",
                f"INSERT INTO user_events (service_id, action, message, at) VALUES ('{key}', 'create', 'm', {at})",
            )

    def folder(self, token: str, at: float) -> Path:
        path = self.jobs / token.split("-")[2] / token
        path.mkdir(parents=True)
        (path / "stdout.log").write_text("hello")
        for each in (path / "stdout.log", path):
            os.utime(each, (at, at))
        return path

    def slot(self, key: str, at: float) -> Path:
        path = self.jobs / key / f"af-i-{key}-0.slot"
        path.mkdir()
        (path / "lock.1").write_text("")
        for each in (path / "lock.1", path):
            os.utime(each, (at, at))
        return path

    async def of(self, column: str, table: str) -> list[Any]:
        return sorted(row[0] for row in await self.backend.run(f"SELECT {column} FROM {table}"))


@pytest.fixture
async def site(backend: Backend, database: Database, tmp_path: Path) -> Site:
    await backend.run("INSERT INTO leases VALUES ('controller', 3, 'me', 'host', 0, 1.0)")
    return Site(backend, database, tmp_path / "run")


async def test_events_go_by_their_age(site: Site) -> None:
    await site.service("a")
    await site.events("a", OLD, NEW)
    await site.sweep()
    assert await site.of("last_at", "events") == [NEW]
    assert await site.of("at", "user_events") == [NEW]


async def test_attempts_go_but_the_newest_of_each_replicas_lane(site: Site) -> None:
    await site.service("a")
    await site.attempt("a", 1, OLD)
    kept = [await site.attempt("a", 2, NEW), await site.attempt("a", 3, OLD)]
    kept += [await site.attempt("a", 1, None, replica=1), await site.attempt("a", 1, OLD, replica=2)]
    await site.attempt("a", 1, OLD, replica=3, lane="b")
    kept += [await site.attempt("a", n, OLD, replica=3, lane=lane) for n, lane in ((2, "b"), (3, "main"))]
    await site.sweep()
    assert await site.of("token", "attempts") == sorted(kept)


async def test_attempts_of_this_month_stay_where_their_gpu_hours_are_counted(site: Site) -> None:
    await site.service("a")
    before_this_month = -1.0
    await site.attempt("a", 1, before_this_month)
    kept = [await site.attempt("a", 2, OLD), await site.attempt("a", 3, NEW)]
    await site.retention(keep_month=True).sweep(None)
    assert await site.of("token", "attempts") == sorted(kept)


async def test_deleted_services_go_once_nothing_of_them_is_left(site: Site) -> None:
    for key, deleted_at in (("lives", None), ("old", OLD), ("new", NEW), ("ending", OLD)):
        await site.service(key, deleted_at)
    await site.attempt("old", 1, OLD)
    await site.events("old", NEW)
    await site.attempt("ending", 1, None)
    await site.sweep()
    assert await site.of("id", "services") == ["ending", "lives", "new"]
    assert await site.of("service_id", "attempts") == ["ending"]


async def test_job_folders_go_that_nobody_knows(site: Site) -> None:
    await site.service("a")
    known = site.folder(await site.attempt("a", 1, OLD), OLD)
    alive, young = site.folder("af-i-b-0-1", OLD), site.folder("af-i-b-0-2", NEW)
    written = site.folder("af-i-b-0-3", OLD)
    (written / "stdout.log").write_text("more")
    unknown, alone = site.folder("af-i-b-0-4", OLD), site.folder("af-i-c-0-1", OLD)
    await site.sweep("af-i-b-0-1")
    assert [path.exists() for path in (known, alive, young, written)] == [True] * 4
    assert [path.exists() for path in (unknown, alone, alone.parent)] == [False] * 3


async def test_slots_stay_until_no_job_of_their_service_is_left(site: Site) -> None:
    await site.service("a")
    site.folder(await site.attempt("a", 1, OLD), OLD)
    site.folder("af-i-b-0-1", OLD)
    slots = [site.slot("a", OLD), site.slot("b", OLD)]
    await site.sweep()
    assert [slot.exists() for slot in slots] == [True, False]


async def test_folders_stay_while_the_cluster_is_silent(site: Site) -> None:
    folder = site.folder("af-i-b-0-1", OLD)
    await site.retention().sweep(None)
    assert folder.exists()


async def test_many_go_a_few_at_a_time(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "AT_ONCE", 2)
    await site.service("a")
    await site.events("a", *[OLD] * 5)
    await site.sweep()
    assert await site.of("id", "events") == []


async def test_only_the_leader_clears_away(site: Site) -> None:
    await site.service("a")
    await site.events("a", OLD)
    await site.backend.run("UPDATE leases SET epoch = 4")
    with pytest.raises(DeposedError):
        await site.sweep()
    assert len(await site.of("id", "events")) == 1


@pytest.mark.parametrize("gone_at", [None, NEW], ids=["lives", "gone"])
async def test_a_key_that_no_job_has_taken_goes_with_its_attempt(site: Site, gone_at: float | None) -> None:
    """The controller was killed between recording that the attempt is gone, and acting on it."""
    await site.service("a")
    attempt, stranger = site.folder(await site.attempt("a", 1, gone_at), NEW), site.folder("af-i-b-0-1", NEW)
    for folder in (attempt, stranger):
        (folder / PARAMETERS).write_text("{}")
    for _ in range(2):
        await site.untaken().sweep(None)
    assert (attempt / PARAMETERS).exists() == (gone_at is None)
    assert (stranger / PARAMETERS).exists(), "of whom the database knows nothing: an older one may have been put back"
    assert (attempt / "stdout.log").exists()
