"""What people want changes: scale, roll out, stop, delete, refuse."""

from __future__ import annotations

from dataclasses import replace

import pytest

from controller.core.attempt import Attempt, Probe
from controller.core.observed import Observed
from controller.core.plan import Cancel, Submit

from .builders import (
    JOB,
    JOB_SPEC,
    LIMITS,
    NOW,
    PENDING,
    RUNNING,
    SILENT,
    actions,
    claim,
    closed,
    condition,
    desired,
    endpoint,
    fails,
    gone,
    intended,
    job,
    merged,
    plan,
    queued,
    ready,
    record,
    refused,
    see,
    see_running,
    snapshot,
    spec,
    started,
    token,
)

CHANGED = {"generation": 2, "digest": "d2"}
APART: dict[str, object] = {**CHANGED, "spec": spec(surge=0)}
"""A change without successors beside what serves."""


def closings(seen: Observed, **changes: object) -> dict[str, str | None]:
    """Token -> outcome of what is closed in this pass."""
    return {a.token: a.outcome for a in plan(desired(**changes), seen).attempts if not a.open}


# Scaling


def test_scaling_up_opens_what_is_missing() -> None:
    assert actions(see_running(ready()), desired(replicas=3)) == (Submit(token=token(1)), Submit(token=token(2)))


def drains(seen: Observed, **changes: object) -> set[str]:
    """What is to drain after this pass."""
    return {a.token for a in record(seen, plan(desired(**changes), seen)).attempts if a.open and a.draining_since}


def test_scaling_down_has_the_highest_drain() -> None:
    seen = see_running(ready(0), ready(1), ready(2), endpoints=tuple(endpoint(ready(n)) for n in range(3)))
    first = plan(desired(replicas=1), seen)
    assert [a.token for a in first.attempts if a.draining_since == NOW and a.open] == [token(1), token(2)]
    assert first.endpoints is not None
    assert [e.ready for e in first.endpoints] == [True, False, False]
    assert not plan(desired(replicas=1), record(seen, first)).attempts


@pytest.mark.parametrize(
    ("surplus", "ends"),
    [
        (ready(1, draining_since=NOW - LIMITS.drain_most), True),
        (ready(1, draining_since=NOW - LIMITS.drain_most + 1), False),
        (ready(1, draining_since=NOW - 9, unready_since=NOW - 1), True),
        (started(1), True),
        (queued(1), True),
    ],
    ids=["had its time", "has time", "is unready", "starts", "is queued"],
)
def test_what_drains_ends_in_its_time_and_what_does_not_serve_at_once(surplus: Attempt, ends: bool) -> None:
    assert closings(see_running(ready(0), surplus)) == ({token(1): "ScaledDown"} if ends else {})


@pytest.mark.parametrize(("since", "ends"), [(NOW - 60, True), (NOW - 1, False)])
def test_what_was_quiet_while_somebody_might_come_says_nothing(since: float, ends: bool) -> None:
    quiet = Probe(at=NOW, ready=True, failures=0, quiet_since=NOW - 50)
    seen = see_running(ready(0), ready(1, draining_since=NOW - 60, draining_feed=7, shut_at=since))
    seen = replace(seen, probes={**seen.probes, token(1): quiet})
    assert closings(seen) == ({token(1): "ScaledDown"} if ends else {})


def test_what_is_wanted_again_while_it_drains_serves_again() -> None:
    seen = see_running(ready(0), ready(1, draining_since=NOW - 9))
    assert drains(seen, replicas=1) == {token(1)}
    assert drains(seen, replicas=2) == set()
    assert actions(seen, desired(replicas=2)) == ()


def test_what_ends_by_itself_answers_nobody_and_is_not_drained() -> None:
    assert closings(see_running(ready(0), ready(1)), spec=JOB_SPEC) == {token(1): "ScaledDown"}


def test_scaling_to_zero_drains_too() -> None:
    seen = see_running(ready(0))
    assert (closings(seen, replicas=0), drains(seen, replicas=0)) == ({}, {token(0)})


def test_a_service_that_is_stopped_while_it_drains_ends_at_once() -> None:
    seen = see_running(ready(0), ready(1, draining_since=NOW - 9))
    assert closings(seen, running=False) == {token(0): "Stopped", token(1): "Stopped"}


def test_scaling_leaves_the_others_as_they_are() -> None:
    seen = see_running(ready(0), ready(1))
    first = plan(desired(replicas=1), seen)
    assert token(0) not in {a.token for a in first.attempts}


def test_a_slot_that_comes_back_goes_on_counting_incarnations() -> None:
    last = gone(ready(1, 4), "ScaledDown")
    assert actions(see_running(ready(0), last), desired(replicas=2)) == (Submit(token=token(1, 5)),)


def test_a_slot_that_comes_back_waits_until_its_old_job_is_gone() -> None:
    last = closed(ready(1, 4), "ScaledDown")
    seen = see_running(ready(0), last)
    assert actions(seen, desired(replicas=2)) == (Cancel(token=last.token, job_id=JOB + 1),)


def test_another_number_of_replicas_is_no_other_launch() -> None:
    assert closings(see_running(ready(0), ready(1)), replicas=2, generation=9) == {}


# Rolling out


def test_an_outdated_service_of_one_is_replaced() -> None:
    seen = see_running(ready())
    first = plan(desired(**APART), seen)
    assert [(a.outcome, a.message) for a in first.attempts] == [
        ("Outdated", "The service was changed (generation 2)."),
    ]
    assert actions(record(seen, first), desired(**APART)) == (Cancel(token=token(), job_id=JOB),)


@pytest.mark.parametrize(
    ("attempts", "expected"),
    [
        pytest.param((ready(0), ready(1), ready(2)), {0}, id="all serve: one"),
        pytest.param((ready(0), ready(1), started(2)), {2}, id="one does not serve: that one"),
        pytest.param((started(0), queued(1), ready(2)), {0, 1}, id="what does not serve need not wait"),
        pytest.param((ready(0), ready(1), ready(2, unready_since=NOW - 9)), {2}, id="unready is not serving"),
        pytest.param((ready(0), ready(1), ready(2, digest="d2")), {0}, id="the next, once the last serves"),
        pytest.param((ready(0), ready(1), started(2, digest="d2")), set(), id="not before the last serves"),
        pytest.param((ready(0), ready(1), closed(ready(2), "Outdated")), set(), id="nor before it is there"),
        pytest.param((ready(0), ready(1, draining_since=NOW - 1), ready(2)), {1}, id="what drains goes on"),
    ],
)
def test_outdated_attempts_are_replaced_one_at_a_time(attempts: tuple[Attempt, ...], expected: set[int]) -> None:
    """Those that serve drain, since others do."""
    seen = see_running(*attempts)
    assert {*closings(seen, replicas=3, **APART), *drains(seen, replicas=3, **APART)} == {token(r) for r in expected}
    assert all(not attempts[r].ready or token(r) in drains(seen, replicas=3, **APART) for r in expected)


def test_or_as_many_as_may_be_unavailable() -> None:
    seen, two = see_running(*(ready(n) for n in range(4))), spec(surge=0, max_unavailable=2)
    assert drains(seen, **CHANGED, spec=two, replicas=4) == {token(0), token(1)}


def test_none_more_once_what_was_launched_has_failed() -> None:
    failed = gone(started(0, 2, digest="d2", generation=2, faults=1), "EngineExited")
    seen, two = see_running(failed, ready(1), ready(2)), spec(surge=0, max_unavailable=2)
    assert drains(seen, **CHANGED, spec=two, replicas=3) == set()


def test_a_roll_out_waits_for_new_replicas_too() -> None:
    assert drains(see_running(ready(0)), replicas=2, **APART) == set()
    assert drains(see_running(ready(0), ready(1, digest="d2")), replicas=2, **APART) == {token(0)}


def test_what_is_scaled_away_does_not_count_as_serving_in_a_roll_out() -> None:
    seen = see_running(ready(0), started(1, digest="d2"), ready(2))
    assert drains(seen, replicas=2, **APART) == {token(2)}


def test_a_roll_out_that_fails_stops_at_the_first_replica() -> None:
    failed = gone(started(0, 2, digest="d2", generation=2, faults=99), "EngineExited")
    seen = see_running(failed, ready(1), ready(2))
    result = plan(desired(replicas=3, **CHANGED), seen)
    assert (result.attempts, result.actions) == ((), ())
    assert condition(result.status, "Progressing").reason == "Failed"
    assert condition(result.status, "Available").status == "True"


@pytest.mark.parametrize("changes", [{"snapshot": None}, {"reading_failure": SILENT}])
def test_nothing_that_serves_is_replaced_while_the_cluster_can_not_take_the_next(changes: dict[str, object]) -> None:
    assert closings(see_running(ready(), **changes), **CHANGED) == {}


# Recreating

RECREATED = {"spec": spec(update_strategy="recreate"), **CHANGED}


@pytest.mark.parametrize(
    "attempts",
    [
        pytest.param((ready(0), ready(1), ready(2)), id="all serve"),
        pytest.param((ready(0), started(1), queued(2)), id="some serve"),
        pytest.param((ready(0),), id="one of three is there"),
    ],
)
def test_outdated_attempts_are_closed_at_once_and_nothing_begins(attempts: tuple[Attempt, ...]) -> None:
    seen = see_running(*attempts)
    first = plan(desired(replicas=3, **RECREATED), seen)
    assert {a.token: a.outcome for a in first.attempts} == {a.token: "Outdated" for a in attempts}
    assert not any(isinstance(action, Submit) for action in first.actions)


def test_new_ones_begin_once_nothing_of_the_old_is_left() -> None:
    wanted = desired(replicas=2, **RECREATED)
    ends, ended = closed(ready(0), "Outdated"), gone(ready(1), "Outdated")
    assert not any(isinstance(action, Submit) for action in actions(see_running(ends, ended), wanted))
    both = see_running(gone(ready(0), "Outdated"), ended)
    assert actions(both, wanted) == (Submit(token=token(0, 2)), Submit(token=token(1, 2)))


def test_what_is_launched_as_wanted_is_held_up_by_no_other_of_its_kind() -> None:
    seen = see_running(ready(0, digest="d2"), gone(ready(1, digest="d2"), "NodeFailed"))
    assert actions(seen, desired(replicas=2, **RECREATED)) == (Submit(token=token(1, 2)),)


@pytest.mark.parametrize("changes", [{"snapshot": None}, {"reading_failure": SILENT}])
def test_nothing_is_closed_while_the_cluster_can_not_take_the_next(changes: dict[str, object]) -> None:
    assert closings(see_running(ready(0), ready(1), **changes), replicas=2, **RECREATED) == {}


# Stopping


@pytest.mark.parametrize("attempt", [intended(), queued(), started(), ready()])
def test_stopping_closes_whatever_is_open(attempt: Attempt) -> None:
    assert closings(see(attempt), running=False) == {attempt.token: "Stopped"}


def test_stopping_needs_no_reading_but_nothing_is_cancelled_without_one() -> None:
    seen = see(ready(), snapshot=None, reading_failure=SILENT)
    first = plan(desired(running=False), seen)
    assert [a.outcome for a in first.attempts] == ["Stopped"]
    assert plan(desired(running=False), record(seen, first)).actions == ()


def test_a_stopped_service_can_be_started_again() -> None:
    assert actions(see(gone(ready(), "Stopped")), desired(generation=3)) == (Submit(token=token(0, 2)),)


def test_a_service_that_can_not_be_resolved_can_be_stopped() -> None:
    seen = see(ready())
    assert [a.outcome for a in plan(refused(running=False), seen).attempts] == ["Stopped"]


# Refusing


def test_a_refusal_leaves_what_runs() -> None:
    seen = see_running(ready(0), started(1), queued(2))
    result = plan(refused(replicas=3), seen)
    assert result.actions == ()
    assert all(a.open for a in result.attempts)


def test_a_refusal_that_names_fewer_replicas_closes_none() -> None:
    result = plan(refused(replicas=1), see_running(ready(0), ready(1)))
    assert all(a.open for a in result.attempts)
    assert result.status is not None
    assert result.status.ready_replicas == 1


def test_under_a_refusal_an_attempt_that_ended_is_not_replaced() -> None:
    last = gone(ready(), "NodeFailed")
    assert actions(see(last), refused()) == ()


def test_under_a_refusal_ends_and_failures_are_still_seen() -> None:
    ended = job(ready(), RUNNING)
    assert condition(plan(refused(), see(ready(), snapshot=snapshot(ended))).status, "Accepted").status == "False"
    probes = fails(ready(), 2)
    (row,) = plan(refused(), see_running(ready(), probes=probes)).attempts
    assert row.unready_since == NOW


def test_a_queued_attempt_of_an_old_generation_is_replaced_at_once() -> None:
    seen = see(queued(), snapshot=snapshot(job(queued(), PENDING)), files=merged(claim(started(1))))
    assert closings(seen, **CHANGED) == {token(): "Outdated"}
