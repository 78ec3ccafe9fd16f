"""Clearing away what closed attempts left, and when they are gone for good."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from controller.core.attempt import Attempt, SendOutcome
from controller.core.job_files import Claim, Held, JobFiles, Unreadable
from controller.core.jobs import JobPhase
from controller.core.plan import Cancel, Revoke

from .builders import (
    COMPLETING,
    ENDED,
    JOB,
    LIMITS,
    NOW,
    PENDING,
    RUNNING,
    SUSPENDED,
    actions,
    answers,
    claim,
    closed,
    desired,
    exited,
    fails,
    job,
    only,
    plan,
    queued,
    ready,
    record,
    revoked,
    see,
    see_running,
    sent,
    snapshot,
    started,
)

STOP = desired(running=False)
LAST = closed(started(), "Stopped")
FORGOTTEN = snapshot(job(LAST, ENDED, state="CANCELLED"))


@pytest.mark.parametrize("phase", [PENDING, RUNNING, SUSPENDED])
def test_a_closed_attempts_job_is_cancelled(phase: JobPhase) -> None:
    assert actions(see(LAST, snapshot=snapshot(job(LAST, phase))), STOP) == (Cancel(token=LAST.token, job_id=JOB),)


def test_not_in_the_pass_that_closes() -> None:
    seen = see_running(ready())
    first = plan(STOP, seen)
    assert first.actions == ()
    assert [a.outcome for a in first.attempts] == ["Stopped"]
    assert actions(record(seen, first), STOP) == (Cancel(token=LAST.token, job_id=JOB),)


def test_all_jobs_of_its_token_are_cancelled() -> None:
    reading = snapshot(job(LAST, RUNNING, job_id=1), job(LAST, PENDING, job_id=2), job(LAST, ENDED, job_id=3))
    assert actions(see(LAST, snapshot=reading), STOP) == (
        Cancel(token=LAST.token, job_id=1),
        Cancel(token=LAST.token, job_id=2),
    )


def test_a_job_being_torn_down_is_left_to_it_and_waited_for() -> None:
    seen = see(LAST, snapshot=snapshot(job(LAST, COMPLETING)), files=exited(LAST))
    assert actions(seen, STOP) == ()
    assert only(seen, STOP).gone_at is None


def test_it_is_cancelled_again_only_after_a_while() -> None:
    seen = see(LAST, snapshot=snapshot(job(LAST, RUNNING)), cancelled={LAST.token: NOW})
    assert actions(seen, STOP, now=NOW + LIMITS.cancel_again - 0.1) == ()
    assert actions(seen, STOP, now=NOW + LIMITS.cancel_again) == (Cancel(token=LAST.token, job_id=JOB),)


def test_nothing_is_cancelled_without_a_snapshot() -> None:
    result = plan(STOP, see(LAST, snapshot=None))
    assert (result.actions, result.attempts) == ((), ())


def test_what_is_alive_is_not_gone_whatever_its_files_say() -> None:
    for files in ({}, claim(LAST), exited(LAST), revoked(LAST)):
        seen = see(LAST, snapshot=snapshot(job(LAST, RUNNING)), files=files, sent=sent(LAST, SendOutcome.REJECTED))
        assert only(seen, STOP).gone_at is None


@pytest.mark.parametrize("sequence", [4, 5])
def test_absence_counts_only_after_the_send(sequence: int) -> None:
    seen = see(LAST, snapshot=snapshot(sequence=sequence), files=exited(LAST), sent=sent(LAST, SendOutcome.UNKNOWN, 5))
    assert only(seen, STOP).gone_at is None
    assert actions(seen, STOP) == ()


@pytest.mark.parametrize("answer", [SendOutcome.REJECTED, SendOutcome.DEFERRED])
def test_what_slurm_did_not_make_is_gone(answer: SendOutcome) -> None:
    assert only(see(LAST, sent=sent(LAST, answer)), STOP).gone_at == NOW


@pytest.mark.parametrize(
    "answers_", [{}, sent(LAST, SendOutcome.UNKNOWN), sent(LAST, SendOutcome.ACCEPTED, job_id=JOB)]
)
def test_what_may_still_come_is_revoked_before_it_is_gone(answers_: dict[str, Any]) -> None:
    seen = see(LAST, sent=answers_)
    result = plan(STOP, seen)
    assert result.actions == (Revoke(token=LAST.token),)
    assert result.attempts == ()
    assert only(replace(seen, files=revoked(LAST)), STOP).gone_at == NOW


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"files": exited(LAST)}, id="its exit file"),
        pytest.param({"files": claim(LAST), "snapshot": snapshot(job(LAST, ENDED))}, id="its node told"),
        pytest.param({"files": exited(LAST), "snapshot": FORGOTTEN}, id="cancelled, and it said so itself"),
    ],
)
def test_a_claimed_attempt_is_gone_when_its_end_is_known(changes: dict[str, Any]) -> None:
    assert only(see(LAST, **changes), STOP).gone_at == NOW


def test_slurmctld_s_word_alone_that_a_job_is_cancelled_waits_for_its_engine() -> None:
    """It may have lost the state in which that job began to run, and then asks no node to end it."""
    last = closed(ready(), "Requeued")
    first = only(see(last, files=claim(last), snapshot=FORGOTTEN), STOP)
    assert (first.gone_at, first.absent_since) == (None, NOW - 1)
    for probes, is_gone in ((answers(last), False), (fails(last), True)):
        seen = see(first, files=claim(last), snapshot=FORGOTTEN, probes=probes)
        assert (only(seen, STOP).gone_at is not None) is is_gone


@pytest.mark.parametrize("last", [LAST, closed(ready(), "Requeued")], ids=["never ready", "not probed"])
def test_where_no_engine_can_be_heard_it_waits_for_accounting(last: Attempt) -> None:
    first = only(see(last, files=claim(last), snapshot=FORGOTTEN), STOP)
    for waited, is_gone in ((LIMITS.accounting_grace - 1, False), (LIMITS.accounting_grace, True)):
        reading = replace(FORGOTTEN, began_at=NOW - 1 + waited)
        assert (only(see(first, files=claim(last), snapshot=reading), STOP).gone_at is not None) is is_gone


def test_the_end_of_another_job_than_the_holder_proves_nothing() -> None:
    seen = see(LAST, files=claim(LAST), snapshot=snapshot(job(LAST, ENDED, job_id=9)))
    assert only(seen, STOP).gone_at is None


@pytest.mark.parametrize("claim", [Held(job_id=JOB), Unreadable()])
def test_a_claimed_attempt_that_is_absent_waits_for_accounting(claim: Claim) -> None:
    files = {LAST.token: JobFiles(claim=claim)}
    first = only(see(LAST, files=files), STOP)
    assert (first.gone_at, first.absent_since) == (None, NOW - 1)
    for waited, is_gone in ((LIMITS.accounting_grace - 1, False), (LIMITS.accounting_grace, True)):
        reading = snapshot(began_at=NOW - 1 + waited)
        assert (only(see(first, files=files, snapshot=reading), STOP).gone_at is not None) is is_gone


def test_seeing_it_again_starts_the_count_anew() -> None:
    seen = see(replace(LAST, absent_since=NOW - 30), snapshot=snapshot(job(LAST, RUNNING)))
    assert only(seen, STOP).absent_since is None


def test_an_engine_that_answers_is_not_gone() -> None:
    missed = replace(LAST, absent_since=NOW - 9999)
    assert only(see(missed, files=claim(LAST), probes=answers(LAST)), STOP).gone_at is None


@pytest.mark.parametrize(
    "files",
    [claim(LAST), exited(LAST), revoked(LAST)],
    ids=["its node told", "its wrapper told", "its claim was removed and revoked"],
)
def test_whoever_says_so_an_engine_that_answers_is_not_gone(files: dict[str, JobFiles]) -> None:
    """Wrapper and guard were killed together: Slurm's job has ended, and the engine answers for hours."""
    last = closed(ready(), "Stopped", absent_since=NOW - 30)
    seen = see(last, snapshot=snapshot(job(last, ENDED)), files=files, probes=answers(last))
    assert only(seen, STOP).gone_at is None
    assert only(replace(seen, probes=fails(last)), STOP).gone_at == NOW


@pytest.mark.parametrize(
    ("files", "waited", "is_gone"),
    [
        (exited(LAST), 30.0, True),
        (claim(LAST), 30.0, False),
        (claim(LAST, quiet_for=LIMITS.sign_grace), 30.0, False),
        (claim(LAST), LIMITS.doubt_grace, True),
    ],
    ids=["its wrapper told", "nobody told", "its wrapper is silent", "for long"],
)
def test_what_may_be_another_s_answer_holds_nothing_against_better_knowledge(
    files: dict[str, JobFiles], waited: float, is_gone: bool
) -> None:
    """An engine that can't prove who it is: its port may be another's by now."""
    last = closed(ready(), "Stopped", absent_since=NOW - 1 - waited)
    answer = {last.token: replace(answers(last)[last.token], is_own=False)}
    seen = see(last, snapshot=snapshot(job(last, ENDED)), files=files, probes=answer)
    assert (only(seen, STOP).gone_at is not None) is is_gone


def test_an_engine_that_could_answer_is_asked_before_its_node_is_believed() -> None:
    last = closed(ready(), "Stopped")
    first = only(see(last, snapshot=snapshot(job(last, ENDED)), files=claim(last)), STOP)
    assert (first.gone_at, first.absent_since) == (None, NOW - 1)
    for waited, is_gone in ((LIMITS.accounting_grace - 1, False), (LIMITS.accounting_grace, True)):
        reading = snapshot(job(last, ENDED), began_at=NOW - 1 + waited)
        assert (only(see(first, files=claim(last), snapshot=reading), STOP).gone_at is not None) is is_gone


def test_gone_is_gone() -> None:
    last = replace(LAST, gone_at=NOW - 10)
    seen = see(last, snapshot=snapshot(job(last, RUNNING)), files=claim(last))
    result = plan(STOP, seen)
    assert (result.actions, result.attempts) == ((), ())


def test_a_closed_attempt_keeps_its_outcome() -> None:
    seen = see(LAST, files=exited(LAST, 9, "EngineExited"), snapshot=snapshot(job(LAST, ENDED, state="NODE_FAIL")))
    result = only(seen, STOP)
    assert (result.outcome, result.closed_at, result.message) == ("Stopped", LAST.closed_at, LAST.message)


def test_a_queued_attempt_that_is_stopped_is_cancelled_and_then_revoked() -> None:
    last = closed(queued(), "Stopped")
    assert actions(see(last, snapshot=snapshot(job(last, PENDING))), STOP) == (Cancel(token=last.token, job_id=JOB),)
    ended = see(last, snapshot=snapshot(job(last, ENDED, state="CANCELLED")))
    assert actions(ended, STOP) == (Revoke(token=last.token),)
