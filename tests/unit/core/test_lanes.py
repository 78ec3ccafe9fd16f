"""Two lanes of a replica: what replaces goes where the other was; beside another only with a reason."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from unittest import mock

import pytest

from api.contract.job.words import Lane
from api.contract.launch import LaunchSpec, Volume
from controller.core.attempt import Attempt
from controller.core.observed import Grant, Observed, Quota
from controller.core.openings import OPENINGS, Opening
from controller.core.plan import Submit
from controller.core.situation import Replica, Situation

from .builders import NOW, actions, closed, condition, desired, gone, plan, ready, see_running, spec, started, token

CHANGED = {"generation": 2, "digest": "d2"}
REASON = "TimeLimit"


def in_b(attempt: Attempt, **changes: object) -> Attempt:
    return replace(attempt, **{"lane": Lane.B, "beside": REASON, **changes})  # type: ignore[arg-type]


def other_lane(replica: Replica, _situation: Situation) -> Opening | None:
    """Whatever is open: the other lane is to open too."""
    is_open = [a for a in replica.attempts if a.open]
    return Opening(lane=Lane.B, beside=REASON) if [a.lane for a in is_open] == [Lane.MAIN] else None


@pytest.fixture
def reason() -> Iterator[None]:
    """Something gives a reason to open the other lane."""
    with mock.patch("controller.core.openings.OPENINGS", (*OPENINGS, other_lane)):
        yield


def opened(seen: Observed, **changes: object) -> list[tuple[str, str | None]]:
    """What is opened: token, lane and reason."""
    known = {a.token for a in seen.attempts}
    return [(a.token, a.lane, a.beside) for a in plan(desired(**changes), seen).attempts if a.token not in known]


def test_the_first_attempt_opens_in_the_main_lane() -> None:
    assert opened(see_running()) == [(token(0, 1), Lane.MAIN, None)]


@pytest.mark.parametrize("lane", list(Lane))
def test_a_replacement_opens_in_the_lane_of_what_it_replaces(lane: Lane) -> None:
    last = replace(gone(started(0, 2), "NodeFailed"), lane=lane)
    before = replace(gone(started(0, 1), "NodeFailed"), lane=Lane.MAIN)
    assert opened(see_running(before, last)) == [(token(0, 3), lane, None)]


def test_the_other_lane_does_not_open_by_itself() -> None:
    assert opened(see_running(ready())) == []


@pytest.mark.usefixtures("reason")
def test_with_a_reason_it_opens_beside_and_numbers_go_on_over_both() -> None:
    old = in_b(gone(started(0, 1), "Stopped"))
    assert opened(see_running(old, ready(0, 2))) == [(token(0, 3), Lane.B, REASON)]


@pytest.mark.usefixtures("reason")
def test_it_waits_until_nothing_of_its_lane_is_left() -> None:
    assert opened(see_running(in_b(closed(started(0, 1), "NodeFailed")), ready(0, 2))) == []


@pytest.mark.usefixtures("reason")
@pytest.mark.parametrize(
    "launch",
    [spec(volumes=(Volume(name="data", target="/data"),)), spec(update_strategy="recreate")],
    ids=["volume", "recreate"],
)
def test_where_engines_may_not_overlap_the_other_lane_stays_shut(launch: LaunchSpec) -> None:
    assert opened(see_running(ready()), spec=launch) == []


@pytest.mark.usefixtures("reason")
def test_what_failed_in_a_lane_is_waited_for_in_that_lane() -> None:
    failed = in_b(gone(started(0, 2), "EngineExited", closed_at=NOW - 1))
    seen = see_running(ready(0, 1), failed)
    assert opened(seen) == []
    again = plan(desired(), seen).look_again_at
    assert again is not None
    assert actions(seen, now=again) == (Submit(token=token(0, 3)),)


@pytest.mark.parametrize("left", [closed(started(0, 1), "NodeFailed"), in_b(closed(started(0, 1), "NodeFailed"))])
def test_a_replacement_without_a_reason_waits_for_both_lanes(left: Attempt) -> None:
    """What stands in the other lane may still serve: nothing says that they may overlap."""
    last = gone(started(0, 2), "Preempted")
    assert opened(see_running(left, last)) == []
    assert opened(see_running(replace(left, gone_at=NOW), last)) == [(token(0, 3), Lane.MAIN, None)]


def test_a_replica_is_ready_once_whichever_of_its_lanes_is() -> None:
    seen = see_running(ready(0, 1), in_b(ready(0, 2)), started(1))
    assert condition(plan(desired(replicas=2), seen).status, "Ready").message == "1 of 2 replicas are ready."
    assert (
        condition(plan(desired(), see_running(started(0, 1), in_b(ready(0, 2)))).status, "Progressing").reason
        == "AsWanted"
    )


def test_both_lanes_are_endpoints() -> None:
    endpoints = plan(desired(), see_running(ready(0, 1), in_b(ready(0, 2)))).endpoints
    assert endpoints is not None
    assert [e.token for e in endpoints] == [token(0, 1), token(0, 2)]


@pytest.mark.usefixtures("reason")
def test_both_lanes_count_under_a_ceiling() -> None:
    seen = see_running(ready(gpus=1))
    for ceiling, is_room in ((1, False), (2, True)):
        quota = Quota(gpus_per_service=ceiling)
        with mock.patch("controller.core.situation.gpus_asked", return_value=1):
            assert bool(opened(replace(seen, grant=Grant(quota=quota)))) is is_room


def test_one_that_is_outdated_drains_once_its_other_lane_serves() -> None:
    old, fresh = ready(0, 1), in_b(ready(0, 2, digest="d2", generation=2))
    changed = plan(desired(**CHANGED), see_running(old, fresh)).attempts
    assert [(a.token, a.open, a.draining_since) for a in changed] == [(token(0, 1), True, NOW)]


def test_one_that_is_outdated_stays_while_another_replica_does_not_serve() -> None:
    seen = see_running(ready(0), started(1, digest="d2", generation=2))
    assert all(a.open for a in plan(desired(**CHANGED, replicas=2), seen).attempts)


def test_a_stopped_service_closes_both_lanes() -> None:
    result = plan(desired(running=False), see_running(ready(0, 1), in_b(ready(0, 2))))
    assert [(a.token, a.outcome) for a in result.attempts] == [(token(0, 1), "Stopped"), (token(0, 2), "Stopped")]
