"""Orphans: late jobs of closed attempts are cancelled, what the database never heard of is left alone."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from typing import Any, cast

import pytest

from controller.cluster.orphans import Orphans
from controller.core.jobs import Job, JobPhase, Snapshot
from controller.ports import Scheduler, Store, Term, UnreadableError

TERM = Term(epoch=1, began_at=0.0)


class World:
    """A store that knows some attempts, and a cluster that notes what is cancelled."""

    def __init__(self) -> None:
        self.closed: dict[str, bool] = {}
        self.asked: list[set[str]] = []
        self.cancelled: list[tuple[str, int]] = []
        self.silent: set[int] = set()

    async def known(self, tokens: Collection[str]) -> Mapping[str, bool]:
        self.asked.append(set(tokens))
        return {token: self.closed[token] for token in tokens if token in self.closed}

    async def cancel(self, token: str, job_id: int) -> None:
        if job_id in self.silent:
            raise UnreadableError("Silent", "scancel timed out")
        self.cancelled.append((token, job_id))


@pytest.fixture
def world() -> World:
    return World()


def orphans(world: World, *tracked: str) -> Orphans:
    fake = cast(Any, world)
    return Orphans(frozenset(tracked), cast(Store, fake), cast(Scheduler, fake))


def snapshot(*jobs: tuple[str, int, JobPhase]) -> Snapshot:
    by_token: dict[str, tuple[Job, ...]] = {}
    for token, job_id, phase in jobs:
        job = Job(job_id=job_id, token=token, phase=phase, state=phase.name)
        by_token[token] = (*by_token.get(token, ()), job)
    return Snapshot(sequence=1, began_at=0.0, jobs=by_token)


@pytest.mark.parametrize("phase", [JobPhase.PENDING, JobPhase.RUNNING, JobPhase.SUSPENDED])
async def test_a_late_job_of_a_closed_attempt_is_cancelled(world: World, phase: JobPhase) -> None:
    world.closed = {"late": True}
    found = orphans(world, "tracked")
    await found.sweep(TERM, snapshot(("late", 5, phase), ("late", 6, phase), ("tracked", 7, phase)))
    assert world.cancelled == [("late", 5), ("late", 6)]
    assert found.unknown == frozenset()


async def test_what_is_tracked_is_not_asked_about(world: World) -> None:
    await orphans(world, "tracked").sweep(TERM, snapshot(("tracked", 7, JobPhase.RUNNING)))
    assert (world.asked, world.cancelled) == ([], [])


@pytest.mark.parametrize("phase", [JobPhase.ENDED, JobPhase.COMPLETING])
async def test_what_is_over_is_no_orphan(world: World, phase: JobPhase) -> None:
    world.closed = {"late": True}
    found = orphans(world)
    await found.sweep(TERM, snapshot(("late", 5, phase), ("unheard", 6, phase)))
    assert (world.asked, world.cancelled, found.unknown) == ([], [], frozenset())


async def test_an_open_attempt_is_left_alone(world: World) -> None:
    world.closed = {"open": False}
    found = orphans(world)
    await found.sweep(TERM, snapshot(("open", 5, JobPhase.RUNNING)))
    assert (world.cancelled, found.unknown) == ([], frozenset())


async def test_what_was_never_heard_of_is_left_alone_and_told_once(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    found = orphans(world)
    with caplog.at_level(logging.ERROR):
        for _ in range(3):
            await found.sweep(TERM, snapshot(("unheard", 5, JobPhase.RUNNING), ("unheard", 6, JobPhase.PENDING)))
    assert world.cancelled == []
    assert found.unknown == {"unheard"}
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert vars(caplog.records[0])["token"] == "unheard"
    await found.sweep(TERM, snapshot())
    assert found.unknown == frozenset()


async def test_what_left_the_cluster_is_unknown_no_more(world: World) -> None:
    world.closed = {"late": True}
    found = orphans(world)
    await found.sweep(TERM, snapshot(("unheard", 5, JobPhase.RUNNING)))
    await found.sweep(TERM, snapshot(("late", 6, JobPhase.RUNNING)))
    assert found.unknown == frozenset()


async def test_one_that_can_not_be_cancelled_keeps_no_other_alive(world: World) -> None:
    world.closed = {"a": True, "b": True}
    world.silent = {5}
    found = orphans(world)
    reading = snapshot(("a", 5, JobPhase.RUNNING), ("b", 6, JobPhase.RUNNING))
    await found.sweep(TERM, reading)
    assert world.cancelled == [("b", 6)]
    world.silent = set()
    await found.sweep(TERM, reading)
    assert world.cancelled == [("b", 6), ("a", 5), ("b", 6)]
