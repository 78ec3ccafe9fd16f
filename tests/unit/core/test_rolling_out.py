"""A change rolled by hand-over: who may change, what it waits for, what fails, what has no room."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from api.contract.job.words import Lane
from api.contract.launch import Resources
from api.contract.status import Condition
from controller.core.attempt import Attempt
from controller.core.observed import Grant, Observed, Quota

from .builders import (
    LIMITS,
    NOW,
    PENDING,
    closed,
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

CHANGED: dict[str, Any] = {"generation": 2, "digest": "d2"}
BESIDE: dict[str, Any] = {"lane": Lane.B, "beside": "Changed", "digest": "d2", "generation": 2}


def fresh(replica: int = 0, incarnation: int = 2, **changes: Any) -> Attempt:
    """A successor that serves."""
    return ready(replica, incarnation, **{**BESIDE, **changes})


def starting(replica: int = 0, incarnation: int = 2, **changes: Any) -> Attempt:
    return started(replica, incarnation, **{**BESIDE, **changes})


def failed(replica: int = 0, **changes: Any) -> Attempt:
    return gone(starting(replica), "EngineExited", **{"closed_at": NOW - 1, **changes})


def opened(seen: Observed, **changes: Any) -> list[tuple[str, Lane, str | None]]:
    known = {a.token for a in seen.attempts}
    return [(a.token, a.lane, a.beside) for a in plan(desired(**changes), seen).attempts if a.token not in known]


def tokens_opened(attempts: Sequence[Attempt], **changes: Any) -> set[str]:
    return {name for name, _, _ in opened(see_running(*attempts), **{"replicas": 3, **CHANGED, **changes})}


def ended(seen: Observed, **changes: Any) -> dict[str, str | None]:
    return {a.token: a.outcome for a in plan(desired(**changes), seen).attempts if not a.open}


def drains(seen: Observed, **changes: Any) -> set[str]:
    rows = record(seen, plan(desired(**changes), seen)).attempts
    return {a.token for a in rows if a.open and a.draining_since is not None}


def progressing(seen: Observed, **changes: Any) -> Condition:
    return condition(plan(desired(**changes), seen).status, "Progressing")


# One after another


def test_a_change_opens_a_successor_in_the_other_lane_and_ends_nothing() -> None:
    seen = see_running(ready(0))
    assert opened(seen, **CHANGED) == [(token(0, 2), Lane.B, "Changed")]
    assert ended(seen, **CHANGED) == {}
    assert progressing(seen, **CHANGED).reason == "RollingOut"


ALL = (ready(0), ready(1), ready(2))


@pytest.mark.parametrize(
    ("attempts", "expected"),
    [
        pytest.param(ALL, {token(0, 2)}, id="all serve: the first"),
        pytest.param((*ALL, starting(0)), set(), id="not before it is ready"),
        pytest.param((*ALL, fresh(0)), set(), id="nor while the old one drains"),
        pytest.param((closed(ready(0), "Superseded"), *ALL[1:], fresh(0)), set(), id="nor while its job is there"),
        pytest.param((gone(ready(0), "Superseded"), *ALL[1:], fresh(0)), {token(1, 2)}, id="but then"),
        pytest.param((*ALL, failed(0, closed_at=NOW - 1)), set(), id="nor once it has failed"),
        pytest.param((*ALL, failed(0, closed_at=NOW - 900)), {token(0, 3)}, id="which is tried again"),
        pytest.param((*ALL[:2], started(2, digest="d2")), set(), id="nor while another one starts"),
        pytest.param((*ALL[:2], gone(ready(2, digest="d2"), "NodeFailed")), {token(2, 2)}, id="what is missing first"),
    ],
)
def test_the_next_begins_once_the_one_before_is_ready(attempts: tuple[Attempt, ...], expected: set[str]) -> None:
    assert tokens_opened(attempts) == expected


def test_as_many_at_a_time_as_surge_says() -> None:
    assert tokens_opened(ALL, spec=spec(surge=2)) == {token(0, 2), token(1, 2)}
    assert tokens_opened((*ALL, starting(0)), spec=spec(surge=2)) == {token(1, 2)}
    assert tokens_opened((*ALL, failed(0)), spec=spec(surge=2)) == set()


def test_two_that_have_begun_do_not_wait_for_each_other() -> None:
    again = failed(0, closed_at=NOW - 900), failed(1, closed_at=NOW - 900)
    assert tokens_opened((*ALL, *again)) == {token(0, 3)}


def test_the_time_limit_waits_for_no_change() -> None:
    ends = ready(1, intent_at=NOW - 500, started_at=NOW - 490, ready_at=NOW - 400, ends_at=NOW + 10)
    seen = see_running(ready(0), ends, starting(0))
    assert opened(seen, replicas=2, **CHANGED) == [(token(1, 2), Lane.B, "TimeLimit")]


def test_and_what_it_opened_is_the_change_of_that_replica() -> None:
    ends = ready(1, intent_at=NOW - 500, started_at=NOW - 490, ready_at=NOW - 400, ends_at=NOW + 10)
    assert tokens_opened((ready(0), ends, starting(1, beside="TimeLimit")), replicas=2) == set()


def test_what_does_not_serve_is_replaced_at_once() -> None:
    assert ended(see_running(ready(0), started(1)), replicas=2, **CHANGED) == {token(1): "Outdated"}


# What fails


def test_while_the_successor_starts_or_fails_the_old_one_serves() -> None:
    for other in (starting(0), failed(0), closed(starting(0), "EngineExited")):
        seen = see_running(ready(0), other)
        assert (ended(seen, **CHANGED), drains(seen, **CHANGED)) == ({}, set())


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (failed(0), "EngineExited: It ended. It is tried again."),
        (failed(0, faults=99), "It failed 100 times in a row. The last time: EngineExited: It ended."),
        (starting(0, faults=2), "It failed 2 times, and is tried again."),
    ],
    ids=["failed", "given up", "tried again"],
)
def test_that_a_change_fails_is_said_and_that_the_former_launch_serves(other: Attempt, said: str) -> None:
    seen = see_running(ready(0), ready(1), other)
    found = plan(desired(replicas=2, **CHANGED), seen)
    told = condition(found.status, "Progressing")
    assert (told.status, told.reason) == ("False", "RolloutFailed")
    assert f"Replica 0 does not come to run what is wanted now. {said} What ran before serves on" in told.message
    assert [(e.reason, e.warning) for e in found.events] == [("RolloutFailed", True)]
    assert condition(found.status, "Available").status == "True"


@pytest.mark.parametrize(
    "attempts", [(ready(0), gone(starting(0), "Preempted")), (ready(0), starting(0))], ids=["preempted", "starting"]
)
def test_what_says_nothing_against_the_change_is_no_failure(attempts: tuple[Attempt, ...]) -> None:
    assert progressing(see_running(*attempts), **CHANGED).reason == "RollingOut"


def test_what_falls_silent_for_a_moment_is_not_closed_while_its_successor_is_not_ready() -> None:
    for since, ends in ((NOW - LIMITS.unreachable_grace + 1, False), (NOW - LIMITS.unreachable_grace, True)):
        old = ready(0, unready_since=since)
        for other in (starting(0), failed(0)):
            assert (token(0) in ended(see_running(old, other), **CHANGED)) is ends


# And back


def test_a_change_back_ends_a_successor_that_is_not_ready() -> None:
    seen = see_running(ready(0), starting(0))
    assert ended(seen, generation=3) == {token(0, 2): "Outdated"}
    assert drains(seen, generation=3) == set()


def test_a_change_back_has_the_successor_drain_and_the_old_one_serve_again() -> None:
    seen = see_running(ready(0, draining_since=NOW - 5), fresh(0))
    assert (ended(seen, generation=3), drains(seen, generation=3)) == ({}, {token(0, 2)})
    late = see_running(ready(0), fresh(0, draining_since=NOW - LIMITS.drain_most))
    assert ended(late, generation=3) == {token(0, 2): "Superseded"}


def test_a_change_back_keeps_the_successor_while_the_old_one_does_not_answer() -> None:
    seen = see_running(ready(0, draining_since=NOW - 1e6, unready_since=NOW - 1), fresh(0))
    assert (ended(seen, generation=3), drains(seen, generation=3)) == ({}, set())


def test_a_third_launch_ends_the_second_that_is_not_ready_and_keeps_the_first() -> None:
    third = {"generation": 3, "digest": "d3"}
    assert ended(see_running(ready(0), starting(0)), **third) == {token(0, 2): "Outdated"}
    serving = see_running(ready(0, draining_since=NOW - 1), fresh(0))
    assert (ended(serving, **third), opened(serving, **third)) == ({}, [])


# Ceilings


ONE: dict[str, Any] = {**CHANGED, "spec": spec(resources=Resources(gpu=1))}


def under(ceiling: int, *attempts: Attempt) -> Observed:
    seen = see_running(*(replace(a, gpus=1) for a in attempts))
    return replace(seen, grant=Grant(quota=Quota(gpus_per_service=ceiling)))


def test_without_room_beside_what_serves_it_ends_before_and_the_condition_says_so() -> None:
    seen = under(2, ready(0), ready(1))
    assert (opened(seen, replicas=2, **ONE), drains(seen, replicas=2, **ONE)) == ([], {token(0)})
    told = progressing(seen, replicas=2, **ONE).message
    assert "(quota.gpus_per_service)" in told
    assert "ends before its replacement starts" in told
    (alone,) = plan(desired(**ONE), under(1, ready(0))).attempts
    assert (alone.outcome, "no room for its successor" in alone.message) == ("Outdated", True)


def test_with_room_it_hands_over() -> None:
    assert [name for name, _, _ in opened(under(3, ready(0), ready(1)), replicas=2, **ONE)] == [token(0, 2)]


def test_what_is_about_to_be_given_back_is_waited_for() -> None:
    for other in (starting(0), closed(ready(0), "Superseded"), closed(ready(2), "ScaledDown")):
        first = fresh(0, 3) if not other.open and other.replica == 0 else ready(0)
        seen = under(3, first, ready(1), other)
        assert (drains(seen, replicas=2, **ONE), ended(seen, replicas=2, **ONE)) == (set(), {})


def test_where_none_may_be_missing_it_waits_and_says_so() -> None:
    wanted = {**CHANGED, "spec": spec(resources=Resources(gpu=1), max_unavailable=0)}
    seen = under(1, ready(0))
    assert (ended(seen, **wanted), drains(seen, **wanted)) == ({}, set())
    assert "update.max_unavailable is 0" in progressing(seen, **wanted).message


def test_what_would_not_fit_in_its_place_either_ends_nothing() -> None:
    wanted = {**CHANGED, "spec": spec(resources=Resources(gpu=3))}
    seen = under(2, ready(0), ready(1))
    assert (ended(seen, replicas=2, **wanted), drains(seen, replicas=2, **wanted)) == ({}, set())


# A cluster that is full


def without_nodes(**changes: Any) -> Observed:
    """One replica that serves, and its successor, which Slurm has no nodes for beside it."""
    old, waits = ready(0, ends_at=NOW + 3600), queued(0, 2, **{**BESIDE, "job_id": 777, **changes})
    pending = job(waits, PENDING, reason="Resources")
    return replace(see_running(old), attempts=(old, waits), snapshot=snapshot(job_running(old), pending))


NO_SURGE: dict[str, Any] = {**CHANGED, "spec": spec(surge=0)}


def test_what_waits_for_nodes_is_said_with_what_to_do() -> None:
    told = progressing(without_nodes(), **CHANGED).message
    assert "(Resources)" in told
    assert "set update.surge to 0" in told
    assert ended(without_nodes(), **CHANGED) == {}


def test_then_what_serves_ends_first() -> None:
    assert ended(without_nodes(), **NO_SURGE) == {token(0): "Outdated"}


def test_but_not_for_a_successor_that_its_time_limit_asked_for() -> None:
    assert ended(without_nodes(beside="TimeLimit"), **NO_SURGE) == {}


# What is said


def test_how_far_it_has_come() -> None:
    seen = see_running(gone(ready(0), "Superseded"), fresh(0), ready(1), starting(1))
    told = progressing(seen, replicas=2, **CHANGED)
    assert told.message.startswith("1 of 2 replicas run what is wanted now. Replica 1: The job 502 runs on n1")
    done = see_running(gone(ready(0), "Superseded"), fresh(0))
    assert progressing(done, **CHANGED).reason == "AsWanted"


def test_that_a_change_can_never_start_is_said_though_the_service_serves() -> None:
    old, barred = ready(0), queued(0, 2, **{**BESIDE, "job_id": 777})
    waits = job(barred, PENDING, reason="PartitionTimeLimit", bar="OverLimit")
    seen = replace(see_running(old), attempts=(old, barred), snapshot=snapshot(job_running(old), waits))
    assert condition(plan(desired(**CHANGED), seen).status, "Startable").reason == "OverLimit"


def job_running(attempt: Attempt) -> Any:
    (found,) = see_running(attempt).snapshot.jobs[attempt.token]  # type: ignore[union-attr]
    return found
