"""After an end: wait how long, try again or not, and what clears the count of failures."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from controller.core.attempt import Attempt, SendOutcome
from controller.core.closings import CLOSINGS
from controller.core.desired import Desired
from controller.core.limits import Limits
from controller.core.outcomes import NOT_A_FAULT, WISHED, Outcome
from controller.core.plan import Submit
from controller.core.retries import failures_after, retry_at

from .builders import (
    DIGEST,
    JOB_SPEC,
    LIMITS,
    NOW,
    actions,
    condition,
    desired,
    gone,
    intended,
    plan,
    queued,
    ready,
    see,
    sent,
    spec,
    started,
    token,
)

CRASHED = gone(started(), "EngineExited")


def opens(last: Attempt, wanted: Desired | None = None, now: float = NOW + 10_000) -> bool:
    return any(isinstance(a, Submit) for a in actions(see(last), wanted, now))


def ended(outcome: str, *, ran: float, failures: int = 0, **changes: Any) -> Attempt:
    """An attempt that ran so long."""
    return gone(started(started_at=NOW - 50 - ran, failures=failures, **changes), outcome)


# Counting


@pytest.mark.parametrize(
    ("last", "count"),
    [
        pytest.param(ended("EngineExited", ran=5000, failures=2), 3, id="a fault counts however long it ran"),
        pytest.param(ended("NodeFailed", ran=5000, failures=2), 0, id="no fault after a while clears the count"),
        pytest.param(ended("NodeFailed", ran=59, failures=2), 3, id="a quick end counts whatever ended it"),
        pytest.param(ended("NodeFailed", ran=61, failures=2), 0, id="not quick any more"),
        pytest.param(gone(queued(failures=2), "NeverStarted"), 3, id="what never started ended quickly"),
        pytest.param(gone(intended(failures=2), "SubmitDeferred"), 3, id="so did what was deferred"),
        pytest.param(ended("Stopped", ran=1, failures=2), 0, id="what people wished is no failure"),
        pytest.param(ended("Outdated", ran=1, failures=2), 0, id="nor is a change"),
        pytest.param(ended("ScaledDown", ran=1, failures=2), 0, id="nor is scaling"),
        pytest.param(queued(failures=2), 0, id="nor is what is open"),
    ],
)
def test_failures_in_a_row(last: Attempt, count: int) -> None:
    assert failures_after(last, LIMITS) == count


@pytest.mark.parametrize(
    ("ready_for", "count"), [(LIMITS.steady_after - 1, 5), (LIMITS.steady_after, 1), (LIMITS.steady_after * 9, 1)]
)
def test_having_been_ready_long_enough_clears_what_was_before(ready_for: float, count: int) -> None:
    last = gone(ready(failures=4, ready_at=NOW - 50 - ready_for, started_at=NOW - 9000), "EngineExited")
    assert failures_after(last, LIMITS) == count


def test_time_spent_unready_does_not_count_as_steady() -> None:
    last = gone(ready(failures=4, ready_at=NOW - 9000, unready_since=NOW - 8900), "Unhealthy")
    assert failures_after(last, LIMITS) == 5


def test_the_next_attempt_carries_the_count() -> None:
    result = plan(desired(), see(gone(started(failures=2), "EngineExited")), NOW + 1000)
    assert [a.failures for a in result.attempts] == [3]


# Backing off


@pytest.mark.parametrize("failures", range(1, 40))
def test_the_back_off_doubles_up_to_its_most_and_is_spread_by_a_quarter_at_most(failures: int) -> None:
    nominal = min(LIMITS.backoff_first * 2 ** (failures - 1), LIMITS.backoff_most)
    pause = retry_at(CRASHED, failures, LIMITS) - (CRASHED.closed_at or 0.0)
    assert nominal <= pause <= nominal * 1.25


def test_the_spread_differs_from_token_to_token_and_never_from_look_to_look() -> None:
    times = {retry_at(gone(started(replica), "EngineExited"), 5, LIMITS) for replica in range(20)}
    assert len(times) == 20
    assert retry_at(CRASHED, 5, LIMITS) == retry_at(CRASHED, 5, LIMITS)


def test_without_failures_there_is_no_pause() -> None:
    last = ended("NodeFailed", ran=5000)
    assert retry_at(last, 0, LIMITS) == last.closed_at
    assert opens(last, now=NOW)


def test_deferred_submissions_back_off_and_are_never_given_up() -> None:
    for failures in (0, 5, 500):
        last = gone(intended(failures=failures, closed_at=NOW), "SubmitDeferred", closed_at=NOW)
        assert not opens(last, now=NOW + 1)
        assert opens(last, now=NOW + LIMITS.backoff_most * 1.25)


def test_limits_are_arguments() -> None:
    last = gone(started(), "EngineExited", closed_at=NOW)
    limits = Limits(backoff_first=1000, backoff_most=1000)
    assert plan(desired(), see(last), NOW + 999, limits).actions == ()


# Giving up


@pytest.mark.parametrize(("before", "given_up"), [(0, False), (3, False), (4, True), (9, True)])
def test_a_service_that_never_starts_is_given_up_after_so_many_failures(before: int, given_up: bool) -> None:
    wanted = desired(spec=spec(max_failures=5))
    last = gone(started(failures=before), "EngineExited")
    assert opens(last, wanted) is not given_up
    result = condition(plan(wanted, see(last), NOW + 10_000).status, "Progressing")
    assert (result.reason == "Failed") is given_up


def test_giving_up_says_how_often_and_why() -> None:
    last = gone(started(failures=4), "EngineExited", message="CUDA out of memory.")
    message = condition(plan(desired(), see(last)).status, "Progressing").message
    assert "5 times in a row" in message
    assert "EngineExited: CUDA out of memory." in message
    assert ". To have it tried again: ai-factory services restart" in message


def test_a_service_that_was_ready_is_never_given_up() -> None:
    assert opens(gone(ready(failures=99), "EngineExited"))


def test_a_job_that_ran_counts_as_failed_all_the_same() -> None:
    assert not opens(gone(ready(failures=99), "EngineExited"), desired(spec=JOB_SPEC))


@pytest.mark.parametrize("outcome", sorted(NOT_A_FAULT - {Outcome.COMPLETED}))
def test_what_is_no_fault_never_gives_up(outcome: str) -> None:
    assert opens(gone(started(failures=99), outcome))


def test_what_a_policy_closes_is_wished_and_so_no_fault() -> None:
    assert {outcome for outcome, _ in CLOSINGS} <= WISHED <= NOT_A_FAULT


def test_giving_up_ends_with_a_new_generation_or_another_launch() -> None:
    last = gone(started(failures=99), "EngineExited")
    assert opens(last, desired(generation=2))
    assert opens(last, desired(generation=2, digest="d2"))


def test_another_launch_starts_without_failures_and_without_a_pause() -> None:
    last = gone(started(failures=99), "EngineExited", closed_at=NOW)
    result = plan(desired(generation=2, digest="d2"), see(last))
    assert [a.failures for a in result.attempts] == [0]
    assert result.actions == (Submit(token=token(0, 2)),)


@pytest.mark.parametrize("changes", [{"generation": 2}, {"generation": 2, "digest": "d2"}])
def test_what_slurm_refused_is_sent_again_only_after_a_change(changes: dict[str, Any]) -> None:
    first = plan(desired(), see(intended(), sent=sent(intended(), SendOutcome.REJECTED, message="Invalid account.")))
    (closed,) = first.attempts
    assert condition(first.status, "Progressing").message.startswith("Slurm refused the job: Invalid account.")
    last = replace(closed, gone_at=NOW)
    assert not opens(last)
    assert opens(last, desired(**changes))


def test_a_job_that_completed_is_not_run_again() -> None:
    done = gone(started(), "Completed")
    assert not opens(done, desired(spec=JOB_SPEC))
    assert not opens(done, desired(spec=JOB_SPEC, generation=2))
    assert opens(done, desired(spec=JOB_SPEC, generation=2, digest="d2"))
    assert condition(plan(desired(spec=JOB_SPEC), see(done)).status, "Progressing").reason == "Completed"


def test_replicas_are_given_up_one_by_one() -> None:
    failed, fine = gone(started(0, failures=99), "EngineExited"), gone(started(1), "NodeFailed")
    result = plan(desired(replicas=2), see(failed, fine), NOW + 1000)
    assert result.actions == (Submit(token=token(1, 2)),)
    assert condition(result.status, "Progressing").reason == "Failed"


def test_nothing_waits_for_what_was_given_up() -> None:
    assert plan(desired(), see(gone(started(failures=99, digest=DIGEST), "EngineExited"))).look_again_at is None


def test_a_volume_that_another_service_holds_is_not_tried_again_until_something_changes() -> None:
    refused = replace(gone(started(), "VolumeInUse"), message="the volume /v is in use by af-i-other-0-1")
    assert not opens(refused)
    assert "the volume /v is in use by af-i-other-0-1" in str(plan(desired(), see(refused)).status)
    assert opens(refused, desired(generation=2))
