"""Hand-over before the time limit: open beside, prefer, drain, close."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from api.contract.job.words import Lane
from api.contract.launch import LaunchSpec, Volume
from controller.core.attempt import Attempt, Probe
from controller.core.hand_over import successor_due_at
from controller.core.observed import Observed
from controller.core.situation import Situation

from .builders import (
    LIMITS,
    NOW,
    RUNNING,
    condition,
    desired,
    gone,
    job,
    plan,
    queued,
    ready,
    see_running,
    snapshot,
    spec,
    started,
    token,
)

TOOK = 30.0
LEAD = 2 * TOOK + LIMITS.drain_most


def standing(ends_in: float, **changes: Any) -> Attempt:
    """Return an attempt that needed `TOOK` to be ready, and whose job ends in so many seconds."""
    times = {"intent_at": NOW - 5000, "started_at": NOW - 4990, "ready_at": NOW - 5000 + TOOK}
    return ready(0, 1, **{**times, "ends_at": NOW + ends_in, **changes})


def successor(**changes: Any) -> Attempt:
    return ready(0, 2, **{"lane": Lane.B, "beside": "TimeLimit", **changes})


def probed(seen: Observed, **probes: Probe) -> Observed:
    return replace(seen, probes={**seen.probes, token(0, 1): probes["first"]})


def opened(seen: Observed, **changes: Any) -> list[tuple[str, Lane, str | None]]:
    known = {a.token for a in seen.attempts}
    return [(a.token, a.lane, a.beside) for a in plan(desired(**changes), seen).attempts if a.token not in known]


def due_at(attempt: Attempt, *others: Attempt, **seen: Any) -> float | None:
    wanted, everything = desired(replicas=1 + len(others)), see_running(attempt, *others, **seen)
    situation = Situation(wanted, everything.attempts, everything, NOW, LIMITS, wanted.replicas)
    return successor_due_at(attempt, situation)


def test_the_successor_opens_in_time_to_be_ready_and_to_drain() -> None:
    assert opened(see_running(standing(LEAD + 1))) == []
    assert opened(see_running(standing(LEAD))) == [(token(0, 2), Lane.B, "TimeLimit")]


@pytest.mark.parametrize(("was", "becomes", "opens"), [(50_000, LEAD, True), (LEAD - 1, LEAD + 1, False)])
def test_a_time_limit_that_an_administrator_changes_moves_it(was: float, becomes: float, opens: bool) -> None:
    attempt = standing(was)
    listed = job(attempt, RUNNING, ends_at=NOW + becomes)
    assert bool(opened(replace(see_running(attempt), snapshot=snapshot(listed)))) is opens


def test_it_is_looked_at_again_when_that_time_comes() -> None:
    assert plan(desired(), see_running(standing(LEAD + 100))).look_again_at == NOW + 100


def test_never_before_half_of_the_jobs_time_is_over() -> None:
    slow = standing(1000, ready_at=NOW - 10)
    assert slow.ends_at is not None
    assert slow.started_at is not None
    assert due_at(slow) == slow.ends_at - (slow.ends_at - slow.started_at) / 2


@pytest.mark.parametrize(
    "attempt",
    [
        replace(standing(1), ends_at=None),
        replace(standing(1), unready_since=NOW - 1),
        started(0, 1, ends_at=NOW + 1),
    ],
    ids=["no end", "not ready", "never ready"],
)
def test_only_what_serves_and_ends_has_a_successor(attempt: Attempt) -> None:
    assert opened(see_running(attempt)) == []


@pytest.mark.parametrize(
    "launch",
    [
        spec(volumes=(Volume(name="data", target="/data"),)),
        spec(update_strategy="recreate"),
        spec(kind="job"),
    ],
    ids=["volume", "recreate", "ends by itself"],
)
def test_none_where_engines_may_not_overlap(launch: LaunchSpec) -> None:
    assert opened(see_running(standing(1)), spec=launch) == []


def test_one_successor_is_enough() -> None:
    assert opened(see_running(standing(1), queued(0, 2, lane=Lane.B, beside="TimeLimit"))) == []


def test_that_it_waits_is_no_news_of_a_service_that_serves() -> None:
    seen = see_running(standing(1), queued(0, 2, lane=Lane.B, beside="TimeLimit"))
    status = plan(desired(), seen).status
    assert condition(status, "Progressing").reason == "AsWanted"
    assert condition(status, "Startable").reason == "NothingAgainst"


def test_once_it_is_ready_it_is_the_endpoint_and_the_old_one_drains() -> None:
    result = plan(desired(), see_running(standing(1), successor()))
    assert result.endpoints is not None
    assert [(e.token, e.ready) for e in result.endpoints] == [(token(0, 1), False), (token(0, 2), True)]
    assert [(a.token, a.draining_since, a.open) for a in result.attempts] == [(token(0, 1), NOW, True)]
    assert [e.reason for e in result.events if e.reason == "Draining"] == ["Draining"]


def test_while_it_is_not_the_old_one_serves_on() -> None:
    assert not plan(desired(), see_running(standing(1), started(0, 2, lane=Lane.B))).attempts


@pytest.mark.parametrize(("quiet_for", "ends"), [(LIMITS.drain_settles, True), (LIMITS.drain_settles - 1, False)])
def test_what_drains_is_closed_once_it_has_drained(quiet_for: float, ends: bool) -> None:
    first = standing(1, draining_since=NOW - 60, shut_at=NOW - 60)
    quiet = Probe(at=NOW, ready=True, failures=0, quiet_since=NOW - quiet_for)
    seen = probed(see_running(first, successor()), first=quiet)
    assert closed(seen) == ({token(0, 1): "Superseded"} if ends else {})


def closed(seen: Observed) -> dict[str, str | None]:
    return {a.token: a.outcome for a in plan(desired(), seen).attempts if not a.open}


def test_or_after_its_time() -> None:
    first = standing(1, draining_since=NOW - LIMITS.drain_most)
    assert closed(see_running(first, successor())) == {token(0, 1): "Superseded"}


def test_never_while_its_successor_does_not_answer() -> None:
    first, second = standing(1, draining_since=NOW - 1e6), successor(unready_since=NOW - 1)
    assert all(a.open for a in plan(desired(), see_running(first, second)).attempts)


def test_what_drains_is_preferred_again_once_nothing_stands_beside_it() -> None:
    first = standing(1000, draining_since=NOW - 10, draining_feed=7, shut_at=NOW - 1)
    over = gone(successor(), "EngineExited")
    (again,) = (a for a in plan(desired(), see_running(first, over)).attempts if a.token == first.token)
    assert (again.draining_since, again.draining_feed, again.shut_at) == (None, None, None)


def test_but_not_before() -> None:
    first, second = standing(1, draining_since=NOW - 5), successor(unready_since=NOW - 1)
    assert not [a for a in plan(desired(), see_running(first, second)).attempts if a.token == first.token]
