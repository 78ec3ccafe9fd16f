"""Interruptions: jobs that somebody else tells to end, and nodes that are taken out of service."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from api.contract.job.words import Lane
from api.contract.launch import Volume
from controller.core.attempt import Attempt
from controller.core.job_files import JobFiles
from controller.core.observed import Observed
from controller.core.plan import Plan

from .builders import (
    COMPLETING,
    LIMITS,
    NOW,
    RUNNING,
    after,
    answers,
    claim,
    condition,
    desired,
    fails,
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

VOLUME = (Volume(name="data", target="/data"),)


def told(attempt: Attempt, at: float | None = NOW - 1) -> dict[str, JobFiles]:
    """What a job says that somebody has told to end."""
    return claim(attempt, step="serving", port=attempt.port, told_to_end_at=at)


def see_told(*attempts: Attempt, **changes: Any) -> Observed:
    """The first of these is told to end."""
    seen = see_running(*attempts, **changes)
    return replace(seen, files={**seen.files, **told(attempts[0])})


def see_leaving(*attempts: Attempt, **changes: Any) -> Observed:
    """The node of the first of these is being drained."""
    jobs = [job(a, RUNNING, node_leaves="draining" if a is attempts[0] else "") for a in attempts if a.open]
    return see_running(*attempts, snapshot=snapshot(*jobs), **changes)


def opened(seen: Observed, result: Plan) -> list[tuple[str, Lane, str | None]]:
    known = {a.token for a in seen.attempts}
    return [(a.token, a.lane, a.beside) for a in result.attempts if a.token not in known]


def test_what_is_told_to_end_leaves_the_endpoints_at_once_and_is_succeeded() -> None:
    seen = see_told(ready())
    result = plan(desired(), seen)
    assert result.endpoints is not None
    assert [(e.token, e.ready) for e in result.endpoints] == [(token(), False)]
    assert after(seen, result)[token()].draining_since == NOW
    assert opened(seen, result) == [(token(0, 2), Lane.B, "Interrupted")]
    assert [e.message for e in result.events if e.reason == "SuccessorOpened"] == [
        "Replica 0: attempt 2 was opened in lane b, beside what serves (Interrupted)."
    ]


def test_the_service_says_that_nobody_answers() -> None:
    result = plan(desired(), see_told(ready()))
    assert result.status is not None
    assert (result.status.ready_replicas, condition(result.status, "Available").reason) == (0, "NobodyAnswers")


def test_where_engines_may_not_overlap_it_is_succeeded_after_its_end() -> None:
    seen = see_told(ready())
    result = plan(desired(spec=spec(volumes=VOLUME)), seen)
    assert after(seen, result)[token()].draining_since == NOW
    assert opened(seen, result) == []


def test_what_has_never_answered_is_waited_for_as_ever() -> None:
    seen = see_told(started())
    result = plan(desired(), seen)
    assert (after(seen, result)[token()].draining_since, opened(seen, result)) == (None, [])


def test_it_is_not_judged_while_it_finishes_what_it_has() -> None:
    """Its door is closed, so that no check of its health comes through; it is not cancelled for that."""
    attempt = ready(draining_since=NOW - 9, unready_since=NOW - 5)
    second = queued(0, 2, lane=Lane.B, beside="Interrupted")
    seen = see_told(attempt, second, probes=fails(attempt, failures=50))
    assert after(seen, plan(desired(), seen))[token()].open


def test_its_successor_opens_even_after_its_door_was_closed() -> None:
    attempt = ready(draining_since=NOW - 9, unready_since=NOW - 5)
    seen = see_told(attempt, probes=fails(attempt))
    assert opened(seen, plan(desired(), seen)) == [(token(0, 2), Lane.B, "Interrupted")]


def test_it_is_succeeded_while_slurm_tears_it_down() -> None:
    attempt = ready()
    seen = see_told(attempt, snapshot=snapshot(job(attempt, COMPLETING)))
    assert opened(seen, plan(desired(), seen)) == [(token(0, 2), Lane.B, "Interrupted")]


def test_it_is_not_preferred_again_while_its_report_can_t_be_read() -> None:
    attempt = ready(draining_since=NOW - 9)
    over = gone(queued(0, 2, lane=Lane.B, beside="Interrupted"), "NeverStarted")
    seen = replace(see_running(attempt, over), files={attempt.token: JobFiles()})
    assert after(seen, plan(desired(), seen))[token()].draining_since == NOW - 9
    told_so = replace(seen, files=told(attempt))
    assert after(told_so, plan(desired(), told_so))[token()].draining_since == NOW - 9
    nothing_said = replace(seen, files=told(attempt, None))
    assert after(nothing_said, plan(desired(), nothing_said))[token()].draining_since is None


@pytest.mark.parametrize("outcome", ["Preempted", "Cancelled", "Terminated", "EngineExited", "Failed"])
def test_how_it_ends_counts_as_no_failure(outcome: str) -> None:
    quick = {"started_at": NOW - 60, "failures": 3, "faults": 3}
    over = gone(ready(draining_since=NOW - 55, **quick), outcome)
    (fresh,) = (a for a in plan(desired(), see_running(over)).attempts if a.token == token(0, 2))
    assert (fresh.failures, fresh.faults) == (0, 0)


def test_what_ends_without_a_word_counts_as_ever() -> None:
    over = gone(ready(started_at=NOW - 60), "EngineExited")
    result = plan(desired(), see_running(over), now=NOW + LIMITS.backoff_most)
    assert [(a.failures, a.faults) for a in result.attempts if a.token == token(0, 2)] == [(1, 1)]


def test_the_node_s_drain_is_not_waited_for() -> None:
    seen = see_leaving(ready())
    result = plan(desired(), seen)
    assert opened(seen, result) == [(token(0, 2), Lane.B, "NodeDrains")]
    assert after(seen, result)[token()].serves


def test_it_serves_until_its_successor_is_ready() -> None:
    first, second = ready(), ready(0, 2, lane=Lane.B, beside="NodeDrains", job_id=900)
    seen = see_leaving(first, second)
    result = plan(desired(), seen)
    assert result.endpoints is not None
    assert [(e.token, e.ready) for e in result.endpoints] == [(token(), False), (token(0, 2), True)]
    assert opened(record(seen, result), plan(desired(), record(seen, result))) == []


def test_of_a_job_that_has_ended_its_node_says_nothing_more() -> None:
    attempt = ready(absent_since=NOW - 5)
    shown = job(attempt, RUNNING, node_leaves="down")
    lost = replace(shown, phase=COMPLETING)
    seen = see_running(attempt, snapshot=snapshot(lost), probes=answers(attempt))
    assert opened(seen, plan(desired(), seen)) == []
