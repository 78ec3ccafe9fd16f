"""How long before a job's end its successor opens: learnt, spread, and corrected by the queue as it is."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from api.contract.job.words import Lane
from controller.core.attempt import Attempt
from controller.core.hand_over import successor_due_at
from controller.core.jobs import Bar
from controller.core.lead import ENOUGH, History, Lead, Measured, Way, measured
from controller.core.observed import Observed
from controller.core.situation import Situation

from .builders import (
    HEALTH,
    LIMITS,
    NOW,
    PENDING,
    RUNNING,
    closed,
    desired,
    gone,
    job,
    queued,
    ready,
    see_running,
    snapshot,
    spec,
    started,
    token,
)

WAITED, STARTED = 600.0, 90.0
KNOWN = History(waits=Measured(count=ENOUGH, high=WAITED), startups=Measured(count=ENOUGH, high=STARTED))
LEAD = WAITED + STARTED + LIMITS.drain_most
FAR = 50_000.0


def serving(replica: int = 0, ends_in: float = FAR, **changes: Any) -> Attempt:
    """Return an attempt that waited 10 s, started in 20 s, and whose job lasts long."""
    times = {"intent_at": NOW - 50_010, "started_at": NOW - 50_000, "ready_at": NOW - 49_980}
    return ready(replica, 1, **{**times, "ends_at": NOW + ends_in, **changes})


def lead(attempt: Attempt, *others: Attempt, seen: Observed | None = None, **changes: Any) -> float:
    """Return how long before the end of its job an attempt's successor opens."""
    seen = seen or see_running(attempt, *others, **{"history": KNOWN, **changes})
    wanted = desired(replicas=9)
    due_at = successor_due_at(attempt, Situation(wanted, seen.attempts, seen, NOW, LIMITS, 9))
    assert due_at is not None
    assert attempt.ends_at is not None
    return attempt.ends_at - due_at


def test_the_high_span_is_what_nineteen_of_twenty_do_not_exceed() -> None:
    assert measured(map(float, range(1, 101))) == Measured(count=100, high=95.0)
    assert measured([3.0, None, 9.0]) == Measured(count=2, high=9.0)
    assert measured([None]) == Measured()


def test_what_was_measured_often_is_believed_alone() -> None:
    assert Measured(count=ENOUGH, high=5.0).expected(own=50.0, guess=500.0) == 5.0


@pytest.mark.parametrize(
    ("high", "own", "guess", "expected"), [(5.0, 7.0, 1.0, 14.0), (7.0, 5.0, 1.0, 14.0), (5.0, 7.0, 20.0, 20.0)]
)
def test_of_few_the_longest_counts_twice_and_never_less_than_the_guess(
    high: float, own: float, guess: float, expected: float
) -> None:
    assert Measured(count=ENOUGH - 1, high=high).expected(own=own, guess=guess) == expected


@pytest.mark.parametrize(
    ("closed_at", "gone_at", "wait"),
    [
        (None, None, 500.0),
        (501.0, None, 500.0),  # it began while the other one still stood
        (499.0, None, None),
        (450.0, 480.0, None),
        (300.0, 370.0, 500.0),  # there was room long before
    ],
)
def test_a_wait_for_the_room_of_the_one_before_says_nothing_of_the_queue(
    closed_at: float | None, gone_at: float | None, wait: float | None
) -> None:
    way = Way(intent_at=0.0, started_at=500.0, forerunner_closed_at=closed_at, forerunner_gone_at=gone_at)
    assert way.wait == wait


def test_a_job_that_has_not_answered_tells_no_startup() -> None:
    assert Way(intent_at=0.0, started_at=5.0).startup is None
    assert Way(intent_at=0.0, started_at=5.0, ready_at=7.0).startup == 2.0


def test_the_lead_is_what_such_jobs_took_and_time_to_drain() -> None:
    assert lead(serving()) == LEAD


def test_while_little_is_known_it_is_twice_its_own_way() -> None:
    assert lead(serving(), history=History()) == 2 * (10 + 20) + LIMITS.drain_most


def test_the_recipes_guess_counts_until_starts_have_been_measured() -> None:
    guessed = desired(spec=spec(health=replace(HEALTH, startup_guess=900.0)))
    found = []
    for history in (History(), KNOWN):
        seen = see_running(serving(), history=history)
        due_at = successor_due_at(serving(), Situation(guessed, seen.attempts, seen, NOW, LIMITS, 1))
        assert due_at is not None
        found.append(NOW + FAR - due_at)
    assert found == [2 * 10 + 900 + LIMITS.drain_most, LEAD]


def test_its_own_wait_for_room_is_not_taken_for_a_queue() -> None:
    first = gone(serving(), closed_at=NOW - 50_020, gone_at=NOW - 50_010)
    changes = {"incarnation": 2, "token": token(0, 2), "lane": Lane.B, "beside": "TimeLimit"}
    second = replace(serving(intent_at=NOW - 90_000), **changes)
    seen = see_running(first, second, history=History())
    assert lead(second, seen=seen) == 2 * 20 + LIMITS.drain_most


# Spread


def test_those_that_end_at_the_same_time_go_one_after_another() -> None:
    replicas = [serving(number) for number in range(4)]
    assert [lead(each, *(r for r in replicas if r is not each)) - LEAD for each in replicas] == [
        3 * STARTED,
        2 * STARTED,
        STARTED,
        0,
    ]


def test_only_those_that_end_after_it_and_within_a_lead_are_made_way_for() -> None:
    others = [serving(1, FAR - 1), serving(2, FAR + LEAD - 1), serving(3, FAR + LEAD)]
    assert lead(serving(), *others) == LEAD + STARTED


@pytest.mark.parametrize(
    "other",
    [
        started(1, 1, ends_at=NOW + FAR),
        serving(1, draining_since=NOW - 1),
        serving(1, unready_since=NOW - 1),
        closed(serving(1)),
        serving(1, ends_at=None),
    ],
    ids=["starting", "draining", "unready", "closed", "without an end"],
)
def test_only_what_serves_is_made_way_for(other: Attempt) -> None:
    assert lead(serving(), other) == LEAD


def test_never_before_half_of_the_time_is_over_however_many_there_are() -> None:
    assert Lead(wait=0.0, startup=100.0, drain=0.0).before(1000.0, lasts=800.0, others=50) == 600.0


# The queue as it is


def waiting(wait: float, **changes: Any) -> float:
    """Return the lead beside a successor of another replica that has waited so long."""
    other = queued(1, 2, intent_at=NOW - wait)
    seen = see_running(serving(), other, history=KNOWN)
    jobs = snapshot(job(serving(), RUNNING), job(other, PENDING, **changes))
    return lead(serving(), seen=replace(seen, snapshot=jobs))


def test_a_queue_that_is_longer_now_than_it_was_makes_it_longer() -> None:
    assert waiting(WAITED - 1) == LEAD
    assert waiting(WAITED + 100) == LEAD + 100


def test_what_the_cluster_expects_counts_before_it_has_come() -> None:
    assert waiting(100, begins_at=NOW + WAITED) == LEAD + 100


@pytest.mark.parametrize("changes", [{"lacks_room": True}, {"bar": Bar.OVER_LIMIT}, {"reason": "Dependency"}])
def test_what_waits_for_something_else_is_no_queue(changes: dict[str, Any]) -> None:
    assert waiting(WAITED + 100, **changes) == LEAD
