"""A rollout that is paused, and what is told of hand-overs."""

from __future__ import annotations

import pytest

from api.contract.job.words import Lane
from controller.core.plan import Submit

from .builders import (
    NOW,
    closed,
    condition,
    desired,
    gone,
    plan,
    ready,
    see_running,
    spec,
    started,
    token,
)

CHANGED = {"generation": 2, "digest": "d2"}
PAUSED = {**CHANGED, "paused": True}


def test_a_paused_change_touches_nothing_that_runs() -> None:
    seen = see_running(ready(0), ready(1), started(2))
    assert plan(desired(replicas=3, **CHANGED), seen).attempts
    paused = plan(desired(replicas=3, **PAUSED), seen)
    assert (paused.attempts, paused.actions) == ((), ())


def test_nor_with_recreate() -> None:
    seen, recreated = see_running(ready(0)), spec(update_strategy="recreate")
    assert plan(desired(spec=recreated, **CHANGED), seen).attempts
    assert plan(desired(spec=recreated, **PAUSED), seen).attempts == ()


def test_one_that_is_paused_half_way_stops_there() -> None:
    seen = see_running(ready(0, digest="d2"), ready(1), ready(2))
    assert plan(desired(replicas=3, **PAUSED), seen).attempts == ()


def test_what_fails_meanwhile_is_replaced_as_is_wanted_now() -> None:
    seen = see_running(gone(ready(0), "NodeFailed"), ready(1))
    result = plan(desired(replicas=2, **PAUSED), seen)
    assert result.actions == (Submit(token=token(0, 2)),)
    assert [a.digest for a in result.attempts] == ["d2"]


def test_people_may_scale_and_stop_a_paused_service() -> None:
    seen = see_running(ready(0), ready(1))
    scaled = plan(desired(replicas=1, **PAUSED), seen)
    assert [(a.token, a.draining_since) for a in scaled.attempts] == [(token(1), NOW)]
    stopped = plan(desired(replicas=2, running=False, **PAUSED), seen)
    assert {a.outcome for a in stopped.attempts} == {"Stopped"}


def test_progressing_says_what_is_held_back_and_how_to_go_on() -> None:
    seen = see_running(ready(0, digest="d2"), ready(1))
    found = condition(plan(desired(replicas=2, **PAUSED), seen).status, "Progressing")
    assert (found.status, found.reason) == ("True", "RolloutPaused")
    assert "1 of 2 replicas run as before generation 2" in found.message
    assert "ai-factory services rollout resume chat" in found.message


def test_it_says_too_how_far_a_replacement_is() -> None:
    seen = see_running(started(0, digest="d2"), ready(1))
    found = condition(plan(desired(replicas=2, **PAUSED), seen).status, "Progressing")
    assert found.reason == "RolloutPaused"
    assert "Replica 0: " in found.message


@pytest.mark.parametrize("attempts", [(ready(0, digest="d2"),), (gone(ready(0), "NodeFailed"),)])
def test_a_pause_that_holds_nothing_back_is_no_news(attempts: tuple[object, ...]) -> None:
    found = condition(plan(desired(**PAUSED), see_running(*attempts)).status, "Progressing")  # type: ignore[arg-type]
    assert found.reason != "RolloutPaused"


def test_a_paused_change_that_was_given_up_says_so() -> None:
    failed = gone(started(0, 2, digest="d2", generation=2, faults=99), "EngineExited")
    found = condition(plan(desired(replicas=2, **PAUSED), see_running(failed, ready(1))).status, "Progressing")
    assert found.reason == "Failed"


def test_the_steps_of_a_hand_over_are_told() -> None:
    times = {"intent_at": NOW - 5000, "started_at": NOW - 4990, "ready_at": NOW - 4970, "ends_at": NOW + 1}
    old, successor = ready(0, 1, **times), ready(0, 2, lane=Lane.B, beside="TimeLimit")
    opening = plan(desired(), see_running(old))
    assert [(e.reason, "(TimeLimit)" in e.message) for e in opening.events if "opened" in e.message] == [
        ("SuccessorOpened", True)
    ]
    preferring = plan(desired(), see_running(old, successor)).events
    told = {e.reason: e.message for e in preferring}
    assert told["Preferred"] == "Replica 0: attempt 2 has the traffic of 1."
    assert "attempt 1" in told["Draining"]
    again = plan(desired(), see_running(ready(0, 1, **times, draining_since=NOW - 1), successor)).events
    assert "Preferred" not in {e.reason for e in again}


def test_a_replacement_after_an_end_is_no_successor() -> None:
    told = [e.reason for e in plan(desired(), see_running(gone(ready(0), "NodeFailed"), closed(ready(1)))).events]
    assert "Submitting" in told
    assert "SuccessorOpened" not in told
