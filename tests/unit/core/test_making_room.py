"""`update.no_room`: where a limit lets no successor run beside a replica, it may end early, drained, to make room."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from api.contract.job.words import Lane
from api.contract.launch import LaunchSpec, Volume
from controller.core.attempt import Attempt, Probe
from controller.core.desired import Desired
from controller.core.observed import Grant, Observed, Quota

from .builders import (
    LIMITS,
    NOW,
    PENDING,
    RUNNING,
    condition,
    desired,
    gone,
    job,
    plan,
    queued,
    ready,
    record,
    see_running,
    snapshot,
    spec,
    started,
    token,
)

SHRINKS = spec(no_room="shrink", resources=replace(spec().resources, gpu=1))
FULL = Grant(quota=Quota(gpus_per_service=3))
WANTED = desired(spec=SHRINKS, replicas=3)
LATER = NOW + 50_000


def serving(replica: int, ends_at: float = LATER, **changes: Any) -> Attempt:
    times = {"intent_at": NOW - 5000, "started_at": NOW - 4990, "ready_at": NOW - 4970, "ends_at": ends_at, "gpus": 1}
    return ready(replica, 1, **{**times, **changes})


ENDS = serving(0, NOW + 200)
ALL = (ENDS, serving(1), serving(2))


def draining(seen: Observed, wanted: Desired = WANTED) -> set[str]:
    attempts = record(seen, plan(wanted, seen)).attempts
    return {a.token for a in attempts if a.open and a.draining_since is not None}


def test_one_that_ends_soon_gets_no_new_requests_while_the_others_serve() -> None:
    seen = see_running(*ALL, grant=FULL)
    assert draining(seen) == {ENDS.token}


def test_without_that_policy_it_serves_on_and_says_so() -> None:
    wanted = desired(spec=replace(SHRINKS, no_room="gap"), replicas=3)
    seen = see_running(*ALL, grant=FULL)
    assert draining(seen, wanted) == set()
    told = condition(plan(wanted, seen).status, "Continuous")
    assert (told.reason, "answers nobody from then on" in told.message) == ("NoRoom", True)


def test_it_is_told_long_before_what_will_become_of_it() -> None:
    told = condition(plan(WANTED, see_running(serving(0), *ALL[1:], grant=FULL)).status, "Continuous")
    assert told.reason == "NoRoom"
    assert "ends before that while the others serve" in told.message


@pytest.mark.parametrize(
    "attempts",
    [
        pytest.param((serving(0), *ALL[1:]), id="its time is far from over"),
        pytest.param((ENDS, serving(1, unready_since=NOW - 5), serving(2)), id="one is missing already"),
        pytest.param((ENDS, serving(1, draining_since=NOW - 5), serving(2)), id="one makes room already"),
    ],
)
def test_it_is_not_its_turn(attempts: tuple[Attempt, ...]) -> None:
    assert ENDS.token not in draining(see_running(*attempts, grant=FULL))


@pytest.mark.parametrize(
    "launch", [replace(SHRINKS, volumes=(Volume(target="/d", name="{replica}"),)), replace(SHRINKS, kind="job")]
)
def test_nor_where_none_is_to_be_beside_it(launch: LaunchSpec) -> None:
    assert draining(see_running(*ALL, grant=FULL), desired(spec=launch, replicas=3)) == set()


def test_the_last_one_that_serves_stays() -> None:
    alone = desired(spec=SHRINKS, replicas=1)
    assert draining(see_running(ENDS, grant=Grant(quota=Quota(gpus_per_service=1))), alone) == set()


def test_what_a_ceiling_leaves_no_room_for_is_not_waited_for() -> None:
    wanted = desired(spec=SHRINKS, replicas=4)
    assert draining(see_running(*ALL, grant=FULL), wanted) == {ENDS.token}


def test_of_those_that_end_at_one_time_each_begins_in_time_for_all() -> None:
    each = 2 * (10.0 + 20.0) + LIMITS.drain_most + LIMITS.teardown_grace  # its own wait and start-up count twice
    for ends_in, begins in ((3 * each, True), (3 * each + 1, False)):
        seen = see_running(*(serving(replica, NOW + ends_in) for replica in range(3)), grant=FULL)
        assert draining(seen) == ({token(0, 1)} if begins else set())


def test_it_is_looked_at_again_when_that_time_comes() -> None:
    each = 2 * (10.0 + 20.0) + LIMITS.drain_most + LIMITS.teardown_grace
    attempts = (serving(0, NOW + 3 * each + 70), *(serving(n, NOW + 3 * each + 80) for n in (1, 2)))
    assert plan(WANTED, see_running(*attempts, grant=FULL)).look_again_at == NOW + 70
    gap = desired(spec=replace(SHRINKS, no_room="gap"), replicas=3)
    later = plan(gap, see_running(*attempts, grant=FULL)).look_again_at
    assert later is None or later > NOW + 80


def test_where_there_is_room_a_successor_opens_instead() -> None:
    seen = see_running(*ALL)
    assert draining(seen) == set()
    assert token(0, 2) in {a.token for a in plan(WANTED, seen).attempts}


@pytest.mark.parametrize(("change", "drains"), [({"lacks_room": True}, True), ({"reason": "Priority"}, False)])
def test_a_successor_that_slurm_will_not_start_beside_it_is_made_room_for(change: dict[str, Any], drains: bool) -> None:
    successor = queued(0, 2, job_id=777, lane=Lane.B, beside="TimeLimit", gpus=1)
    seen = see_running(*ALL, successor)
    listed = snapshot(*(job(a, RUNNING, ends_at=a.ends_at) for a in ALL), job(successor, PENDING, **change))
    assert (ENDS.token in draining(replace(seen, snapshot=listed))) is drains


def test_so_is_one_that_slurm_does_not_take() -> None:
    put_off = gone(started(0, 2, lane=Lane.B, beside="TimeLimit"), "SubmitDeferred", closed_at=NOW - 1)
    assert draining(see_running(*ALL, put_off)) == {ENDS.token}


def test_it_ends_once_nothing_is_in_flight_and_its_successor_begins_in_its_place() -> None:
    since = NOW - LIMITS.drain_settles
    old = replace(ENDS, draining_since=since, draining_feed=1, shut_at=since)
    busy = see_running(old, *ALL[1:], grant=FULL)
    assert plan(WANTED, busy).attempts == ()
    quiet = Probe(at=NOW, ready=True, failures=0, is_own=True, quiet_since=since)
    made = plan(WANTED, replace(busy, probes={**busy.probes, old.token: quiet}))
    (closed,) = made.attempts
    assert (closed.outcome, closed.closed_at) == ("MadeRoom", NOW)
    over = replace(closed, gone_at=NOW)
    (fresh,) = plan(WANTED, see_running(over, *ALL[1:], grant=FULL)).attempts
    assert (fresh.replica, fresh.lane, fresh.failures) == (0, Lane.MAIN, 0)
