"""A job that its node tears down: its replica waits for the job's own record, and not for the site's epilog."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from controller.core.attempt import Attempt, Probe
from controller.core.job_files import JobFiles
from controller.core.observed import Observed
from controller.core.plan import Submit

from .builders import (
    COMPLETING,
    JOB,
    LIMITS,
    NOW,
    RUNNING,
    actions,
    claim,
    closed,
    condition,
    desired,
    exited,
    job,
    only,
    plan,
    ready,
    record,
    see,
    snapshot,
    token,
)

READ = NOW - 1
"""When the snapshot began."""
EARLIER = READ - LIMITS.teardown_grace


def torn_down(attempt: Attempt, files: dict[str, JobFiles], **changes: Any) -> Observed:
    return see(attempt, snapshot=snapshot(job(attempt, COMPLETING)), files=files, **changes)


def test_what_ended_by_itself_is_closed_at_once_and_replaced_after_a_grace() -> None:
    attempt = closed(ready(0), "EngineExited", closed_at=NOW - 60)
    left = record(torn_down(attempt, exited(attempt)), plan(desired(), torn_down(attempt, exited(attempt))))
    assert left.attempts[0].absent_since == READ
    assert only(torn_down(replace(attempt, absent_since=EARLIER), exited(attempt))).gone_at == NOW


def test_who_was_told_to_end_waits_a_little_for_slurms_word_and_no_longer() -> None:
    files = exited(ready(0), 0, "Terminated", "stopped by SIGTERM")
    early = only(torn_down(ready(0), files))
    assert (early.open, early.ready, early.absent_since) == (True, False, READ)
    late = only(torn_down(ready(0, absent_since=EARLIER), files))
    assert (late.outcome, late.message) == ("Terminated", "stopped by SIGTERM")


def test_a_replacement_is_opened_beside_the_epilog() -> None:
    attempt = closed(ready(0), "Cancelled", closed_at=NOW - 60, absent_since=EARLIER)
    seen = torn_down(attempt, exited(attempt, 0, "Terminated"))
    assert actions(seen, desired()) == (Submit(token=token(0, 2)),)


def test_without_a_record_it_is_waited_for_however_long() -> None:
    attempt = closed(ready(0), absent_since=NOW - 1000, closed_at=NOW - 1000)
    found = only(torn_down(attempt, claim(attempt)))
    assert (found.gone_at, found.absent_since) == (None, None)
    still = only(torn_down(ready(0, absent_since=NOW - 1000), claim(ready(0))))
    assert (still.open, still.absent_since) == (True, None)


def test_another_job_of_the_token_is_waited_for_too() -> None:
    attempt = closed(ready(0), absent_since=EARLIER, closed_at=NOW - 60)
    jobs = snapshot(job(attempt, COMPLETING), job(attempt, RUNNING, job_id=JOB + 1))
    found = only(see(attempt, snapshot=jobs, files=exited(attempt)))
    assert found.gone_at is None


def test_an_engine_that_answers_has_not_ended_whatever_is_recorded() -> None:
    attempt = closed(ready(0), absent_since=EARLIER, closed_at=NOW - 60)
    probes = {attempt.token: Probe(at=NOW - 1, ready=True, failures=0, is_own=True)}
    assert only(torn_down(attempt, exited(attempt), probes=probes)).gone_at is None


def test_it_says_that_it_is_torn_down_and_since_when() -> None:
    attempt = ready(0, unready_since=NOW - 40)
    found = plan(desired(), torn_down(attempt, claim(attempt)))
    said = condition(found.status, "Progressing").message
    assert said == f"The job {JOB} is being torn down on {attempt.node} since 03:46:00 UTC (Slurm: COMPLETING)."
    ended = closed(attempt, closed_at=NOW - 40)
    found = plan(desired(), torn_down(ended, claim(ended)))
    assert "since 03:46:00 UTC" in condition(found.status, "Progressing").message
