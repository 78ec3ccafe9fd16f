"""What holds of every plan, whatever is wanted and whatever is seen: drawn at random, the nonsensical included."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from api.contract.job.words import Lane, Step
from api.contract.launch import Resources
from api.contract.status import word
from controller.core.attempt import Attempt, Probe, SendOutcome, Sent, Shortening
from controller.core.desired import Desired
from controller.core.evidence import holder
from controller.core.job_files import Held, JobExit, JobFiles, Revoked, Unreadable
from controller.core.jobs import Job, JobEnd, JobPhase, Maintenance, ReadingFailure, Snapshot
from controller.core.observed import Observed
from controller.core.openings import OPENINGS, Opening, OpeningPolicy
from controller.core.plan import Cancel, Plan, Revoke, Submit
from controller.core.situation import Replica, Situation
from tests.examples import examples

from .builders import JOB_SPEC, LIMITS, NOW, desired, intended, plan, record, refused, see, spec, token

WORDS = {"pending", "building", "starting", "running", "completed", "failed", "cancelled"}
OUTCOMES = ["EngineExited", "Stopped", "Completed", "NodeFailed", "SubmitRejected", "SubmitDeferred", "Vanished"]

PATIENCES = "StartupTimeout", "Outdated", "ScaledDown", "Superseded"
"""Ends that come by time alone."""

some = st.sampled_from
past = st.floats(min_value=0.0, max_value=2_000.0).map(lambda ago: NOW - ago)
maybe_past = st.none() | past
job_ids = st.integers(min_value=1, max_value=4)
digests = some(["d1", "d2"])


def optional(value: st.SearchStrategy[Any], tokens: list[str]) -> st.SearchStrategy[dict[str, Any]]:
    return st.dictionaries(some(tokens), value) if tokens else st.just({})


@st.composite
def attempts(draw: st.DrawFn) -> tuple[Attempt, ...]:
    """At most one open attempt a lane of a replica, the newest there, as the database holds it; earlier ones closed."""
    found = []
    for replica in draw(st.sets(st.integers(0, 3))):
        last = draw(st.integers(1, 4))
        lanes = [draw(some(list(Lane))) for _ in range(last + 1)]
        for incarnation in range(draw(st.integers(1, last)), last + 1):
            attempt = intended(
                replica,
                incarnation,
                lane=lanes[incarnation],
                beside=draw(some([None, "HandOver"])),
                digest=draw(digests),
                generation=draw(st.integers(1, 2)),
                failures=draw(st.integers(0, 6)),
                intent_at=draw(past),
                job_id=draw(st.none() | job_ids),
                absent_since=draw(maybe_past),
                claimed_at=draw(maybe_past),
            )
            if draw(st.booleans()):
                attempt = replace(attempt, started_at=draw(past), node="n1", host="n1", launched_at=draw(maybe_past))
            if attempt.started_at is not None and draw(st.booleans()):
                attempt = replace(attempt, port=8000, serving_at=draw(past), ready_at=draw(maybe_past))
            if attempt.ready_at is not None:
                attempt = replace(attempt, unready_since=draw(maybe_past), draining_since=draw(maybe_past))
            is_newest = lanes[incarnation] not in lanes[incarnation + 1 :]
            if not is_newest or draw(st.booleans()):
                attempt = replace(attempt, closed_at=draw(past), outcome=draw(some(OUTCOMES)))
            if is_newest and not attempt.open and draw(st.booleans()):
                attempt = replace(attempt, gone_at=NOW)
            found.append(attempt)
    return tuple(found)


@st.composite
def snapshots(draw: st.DrawFn, tokens: list[str]) -> Snapshot:
    jobs: dict[str, tuple[Job, ...]] = {}
    for each in draw(st.lists(some(tokens), unique=True)) if tokens else []:
        jobs[each] = tuple(
            Job(
                job_id=job_id,
                token=each,
                phase=(phase := draw(some(list(JobPhase)))),
                state=phase.name,
                end=draw(some(list(JobEnd))) if phase is JobPhase.ENDED else None,
                is_kept_back=draw(st.booleans()) if phase is JobPhase.PENDING else False,
                awaits_maintenance=draw(st.booleans()) if phase is JobPhase.PENDING else False,
                time_limit=draw(some([None, 3600.0, 86_400.0])) if phase is JobPhase.PENDING else None,
                node=draw(some([None, "n1", "n2"])),
                started_at=draw(maybe_past),
                ends_at=draw(maybe_past),
                exit_code=draw(some([None, 0, 1])),
            )
            for job_id in sorted(draw(st.sets(job_ids, min_size=1, max_size=3)))
        )
    return Snapshot(
        sequence=draw(st.integers(1, 9)),
        began_at=draw(past),
        jobs=jobs,
        maintenances=tuple(draw(st.lists(maintenances, max_size=2))),
        in_doubt=frozenset(draw(st.sets(some(tokens)))) if tokens else frozenset(),
    )


maintenances = st.builds(Maintenance, begins_at=st.floats(NOW - 100, NOW + 4000), ends_at=st.floats(NOW, NOW + 9000))
shortenings = st.builds(
    Shortening, at=past, minutes=st.integers(1, 60), before=st.just(NOW + 4000), trouble=some(["", "No."])
)
claims = st.builds(Held, job_id=job_ids) | st.just(Revoked()) | st.just(Unreadable())
exits = st.builds(
    JobExit, code=st.integers(0, 2), reason=some(["EngineExited", "Terminated", "TimeLimit"]), message=st.just("")
)
job_files = st.builds(
    JobFiles,
    claim=st.none() | claims,
    step=some([None, *Step, "unheard-of"]),
    port=some([None, 8000]),
    exit=st.none() | exits,
)
probes = st.builds(Probe, at=past, ready=st.booleans(), failures=st.integers(0, 5), message=st.just("refused"))
answers = st.builds(
    Sent,
    outcome=some(list(SendOutcome)),
    sequence=st.integers(1, 9),
    job_id=st.none() | job_ids,
    message=st.just("No."),
)
silences = st.builds(ReadingFailure, since=past, reason=st.just("SlurmSilent"), message=st.just("No answer."))


@st.composite
def observations(draw: st.DrawFn) -> Observed:
    rows = draw(attempts())
    tokens = [a.token for a in rows if a.gone_at is None]
    return see(
        *rows,
        snapshot=draw(st.none() | snapshots(tokens)),
        reading_failure=draw(st.none() | silences),
        files=draw(optional(job_files, tokens)),
        probes=draw(optional(probes, tokens)),
        sent=draw(optional(answers, tokens)),
        cancelled=draw(optional(past, tokens)),
        shortened=draw(optional(shortenings, tokens)),
    )


wishes = st.builds(
    desired,
    running=st.booleans(),
    replicas=st.integers(0, 4),
    generation=st.integers(1, 3),
    digest=digests,
    spec=some([spec(resources=Resources(time_min=30)), JOB_SPEC, spec(max_failures=1)]),
) | st.builds(refused, running=st.booleans(), replicas=st.integers(0, 4))

anything = given(wanted=wishes, seen=observations())
Rule = Callable[[Desired, Observed, Plan], None]
RULES: list[Rule] = []


def rule(check: Rule) -> Rule:
    RULES.append(check)
    return check


def table(seen: Observed, result: Plan) -> dict[str, Attempt]:
    return {a.token: a for a in record(seen, result).attempts}


@rule
def deciding_is_a_function(wanted: Desired, seen: Observed, result: Plan) -> None:
    assert plan(wanted, seen) == result


@rule
def never_two_open_attempts_of_a_replica(wanted: Desired, seen: Observed, result: Plan) -> None:
    rows = table(seen, result).values()
    assert all(count == 1 for count in Counter((a.replica, a.lane) for a in rows if a.open).values())
    assert len({(a.replica, a.incarnation) for a in rows}) == len(rows)


@rule
def closed_stays_closed_and_gone_stays_gone(wanted: Desired, seen: Observed, result: Plan) -> None:
    after = table(seen, result)
    for before in seen.attempts:
        now = after[before.token]
        if not before.open:
            assert (now.closed_at, now.outcome, now.message) == (before.closed_at, before.outcome, before.message)
        if before.gone_at is not None:
            assert now == before
        assert (now.token, now.replica, now.incarnation, now.digest) == (
            before.token,
            before.replica,
            before.incarnation,
            before.digest,
        )


@rule
def every_end_has_a_reason_and_only_what_ended_is_gone(wanted: Desired, seen: Observed, result: Plan) -> None:
    for attempt in table(seen, result).values():
        assert attempt.open or attempt.outcome
        assert attempt.gone_at is None or not attempt.open


@rule
def only_a_fresh_row_is_submitted_and_every_fresh_row_is(wanted: Desired, seen: Observed, result: Plan) -> None:
    known = {a.token for a in seen.attempts}
    fresh = [a for a in result.attempts if a.token not in known]
    assert [a.token for a in result.actions if isinstance(a, Submit)] == [a.token for a in fresh]
    for attempt in fresh:
        assert (attempt.open, attempt.intent_at, attempt.job_id) == (True, NOW, None)
        assert (attempt.digest, attempt.generation) == (wanted.digest, wanted.generation)
        assert attempt.replica < wanted.replicas


@rule
def nothing_is_submitted_beside_what_may_still_be_there(wanted: Desired, seen: Observed, result: Plan) -> None:
    after = table(seen, result)
    for action in result.actions:
        if isinstance(action, Submit):
            mine = after[action.token]
            others = [a for a in after.values() if a.replica == mine.replica and a.token != mine.token]
            assert all(a.gone_at is not None for a in others if a.lane is mine.lane or mine.beside is None)
            assert all(a.incarnation < mine.incarnation for a in others)
            assert seen.snapshot is not None
            assert seen.reading_failure is None


@rule
def an_open_attempts_own_job_is_never_cancelled(wanted: Desired, seen: Observed, result: Plan) -> None:
    was_open = {a.token: a for a in seen.attempts if a.open}
    for action in result.actions:
        if isinstance(action, Cancel) and action.token in was_open:
            assert seen.snapshot is not None
            mine = holder(
                was_open[action.token], seen.snapshot.jobs[action.token], seen.files.get(action.token, JobFiles())
            )
            assert mine is not None
            assert action.job_id != mine.job_id


@rule
def only_what_is_seen_alive_is_cancelled(wanted: Desired, seen: Observed, result: Plan) -> None:
    for action in result.actions:
        if isinstance(action, Cancel):
            assert seen.snapshot is not None
            jobs = {j.job_id: j.phase for j in seen.snapshot.jobs[action.token]}
            assert jobs[action.job_id] is not JobPhase.ENDED


@rule
def only_what_is_unclaimed_and_unseen_is_revoked(wanted: Desired, seen: Observed, result: Plan) -> None:
    for action in result.actions:
        if isinstance(action, Revoke):
            assert seen.files.get(action.token, JobFiles()).claim is None
            assert seen.snapshot is not None
            phases = {j.phase for j in seen.snapshot.jobs.get(action.token, ())}
            assert phases <= {JobPhase.ENDED}


@rule
def without_a_snapshot_nothing_is_done_to_the_cluster(wanted: Desired, seen: Observed, result: Plan) -> None:
    assert plan(wanted, replace(seen, snapshot=None)).actions == ()


@rule
def the_next_look_is_never_in_the_past(wanted: Desired, seen: Observed, result: Plan) -> None:
    """Unless something was closed in this pass: it is evicted by the next one."""
    was_open = {a.token for a in seen.attempts if a.open}
    is_closing = any(not a.open and a.token in was_open for a in result.attempts)
    assert result.look_again_at is None or result.look_again_at > NOW or is_closing


@rule
def endpoints_are_open_attempts_with_an_address(wanted: Desired, seen: Observed, result: Plan) -> None:
    after = table(seen, result)
    for found in result.endpoints or ():
        assert after[found.token].open
        assert found.ready == after[found.token].serves


@rule
def the_status_is_a_word(wanted: Desired, seen: Observed, result: Plan) -> None:
    status = result.status
    assert status is not None
    found = word(wanted=wanted.running, conditions=status.conditions)
    assert found in WORDS
    assert (found == "cancelled") is (not wanted.running)
    assert 0 <= status.ready_replicas <= status.target <= wanted.replicas


def hand_over(replica: Replica, _situation: Situation) -> Opening | None:
    """Once all that is open of a replica is ready, its other lane opens beside it."""
    is_open = [a for a in replica.attempts if a.open]
    if len(is_open) != 1 or not is_open[0].ready:
        return None
    return Opening(lane=Lane.B if is_open[0].lane is Lane.MAIN else Lane.MAIN, beside="HandOver")


@pytest.mark.parametrize("more", [(), (hand_over,)], ids=["one lane", "two lanes"])
@settings(max_examples=examples(60))
@anything
def test_every_plan_keeps_the_rules(more: tuple[OpeningPolicy, ...], wanted: Desired, seen: Observed) -> None:
    with mock.patch("controller.core.openings.OPENINGS", (*OPENINGS, *more)):
        result = plan(wanted, seen)
        for check in RULES:
            check(wanted, seen, result)


@anything
def test_deciding_again_on_what_was_decided_comes_to_rest(wanted: Desired, seen: Observed) -> None:
    """With nothing new to see, a few passes later there is nothing more to record or to tell.

    Each pass may close what another pass then evicts, and open what eviction made room for; no more than that.
    """
    for _ in range(4):
        seen = record(seen, plan(wanted, seen))
    last = plan(wanted, seen)
    assert (last.attempts, last.events, last.status, last.endpoints) == ((), (), None, None)
    assert not any(isinstance(a, Submit) for a in last.actions)


@anything
def test_time_alone_closes_and_opens_only_by_patience(wanted: Desired, seen: Observed) -> None:
    """Later, with nothing new to see: what was closed or opened was a start too slow, or a pause that was over."""
    for _ in range(4):
        seen = record(seen, plan(wanted, seen))
    later = plan(wanted, seen, NOW + 10 * LIMITS.backoff_most)
    known = {a.token for a in seen.attempts}
    for attempt in later.attempts:
        assert attempt.token not in known or attempt.outcome in (None, *PATIENCES)


def test_the_builders_make_tokens_as_deciding_does() -> None:
    assert token(2, 3) == "af-i9-s4-2-3"
