"""Of several jobs under one token: whose the attempt is, and what becomes of the others."""

from __future__ import annotations

import pytest

from controller.core.evidence import holder
from controller.core.job_files import Claim, Held, JobFiles, Revoked, Unreadable
from controller.core.jobs import Job, JobPhase
from controller.core.plan import Cancel

from .builders import (
    COMPLETING,
    ENDED,
    NOW,
    PENDING,
    RUNNING,
    SUSPENDED,
    actions,
    closed,
    intended,
    job,
    only,
    queued,
    see,
    snapshot,
    started,
)

TOKEN = intended().token


def jobs(*phases: JobPhase) -> tuple[Job, ...]:
    """Jobs 1, 2, … of the token in these phases."""
    return tuple(job(intended(), phase, job_id=number) for number, phase in enumerate(phases, start=1))


@pytest.mark.parametrize(
    ("phases", "claim", "expected"),
    [
        pytest.param((), None, None, id="none there"),
        pytest.param((PENDING,), None, 1, id="the only one"),
        pytest.param((RUNNING, RUNNING), None, 1, id="the lowest id while nobody has the claim"),
        pytest.param((ENDED, PENDING), None, 2, id="of those alive"),
        pytest.param((ENDED, ENDED), None, 1, id="the lowest id where all have ended"),
        pytest.param((RUNNING, RUNNING), Held(job_id=2), 2, id="who holds the claim"),
        pytest.param((RUNNING, ENDED), Held(job_id=2), 2, id="who holds the claim, though it has ended"),
        pytest.param((PENDING, PENDING), Held(job_id=9), None, id="the holder is not there"),
        pytest.param((RUNNING, RUNNING), Unreadable(), 1, id="an unreadable claim tells nothing of who"),
    ],
)
def test_the_holder_of_the_claim_has_the_attempt(
    phases: tuple[JobPhase, ...], claim: Claim | None, expected: int | None
) -> None:
    found = holder(intended(), jobs(*phases), JobFiles(claim=claim))
    assert (found.job_id if found else None) == expected


def test_nobody_has_a_revoked_attempt() -> None:
    assert holder(intended(), jobs(RUNNING), JobFiles(claim=Revoked())) is None


@pytest.mark.parametrize("files", [JobFiles(), JobFiles(claim=Unreadable())], ids=["unseen", "unreadable"])
def test_while_its_claim_can_not_be_read_a_started_attempt_keeps_its_job(files: JobFiles) -> None:
    """Its twin, which waits for it, would be taken for a job that was requeued."""
    assert holder(started(job_id=2), jobs(PENDING), files) is None
    found = holder(started(job_id=2), jobs(PENDING, RUNNING), files)
    assert found is not None
    assert found.job_id == 2


def test_the_attempts_job_id_follows_the_claim() -> None:
    seen = see(
        queued(job_id=1), snapshot=snapshot(*jobs(PENDING, RUNNING)), files={TOKEN: JobFiles(claim=Held(job_id=2))}
    )
    assert only(seen).job_id == 2


def test_a_twin_that_gets_the_claim_did_not_run_when_the_other_did() -> None:
    """The start of the other would make it a job that ran and is pending again: requeued."""
    attempt = started(job_id=1, claimed_at=None)
    files = {TOKEN: JobFiles(claim=Held(job_id=2))}
    for _ in range(2):
        attempt = only(see(attempt, snapshot=snapshot(*jobs(ENDED, PENDING)), files=files))
        assert (attempt.open, attempt.job_id, attempt.started_at, attempt.node) == (True, 2, None, None)


@pytest.mark.parametrize("phase", [PENDING, RUNNING, SUSPENDED, COMPLETING])
def test_other_live_jobs_of_the_token_are_cancelled(phase: JobPhase) -> None:
    files = {TOKEN: JobFiles(claim=Held(job_id=2))}
    seen = see(queued(job_id=2), snapshot=snapshot(*jobs(phase, RUNNING, ENDED)), files=files)
    assert actions(seen) == (Cancel(token=TOKEN, job_id=1),)


@pytest.mark.parametrize("files", [{}, {TOKEN: JobFiles(claim=Unreadable())}])
def test_none_is_cancelled_before_it_is_known_who_won(files: dict[str, JobFiles]) -> None:
    """Any of them may still have the claim, or have won it since the files were read."""
    assert actions(see(queued(job_id=1), snapshot=snapshot(*jobs(RUNNING, RUNNING)), files=files)) == ()


def test_the_attempts_own_job_is_never_cancelled_while_it_is_open() -> None:
    for claimed_by in (1, 2, 3):
        seen = see(
            queued(),
            snapshot=snapshot(*jobs(RUNNING, RUNNING, PENDING)),
            files={TOKEN: JobFiles(claim=Held(job_id=claimed_by))},
        )
        assert {a.job_id for a in actions(seen) if isinstance(a, Cancel)} == {1, 2, 3} - {claimed_by}


def test_without_its_holder_no_job_of_the_token_is_touched_until_the_attempt_is_closed() -> None:
    files = {TOKEN: JobFiles(claim=Held(job_id=9))}
    reading = snapshot(*jobs(PENDING))
    assert actions(see(started(job_id=9), snapshot=reading, files=files)) == ()
    assert actions(see(closed(started(job_id=9)), snapshot=reading, files=files)) == (Cancel(token=TOKEN, job_id=1),)


def test_a_job_seen_without_its_sbatch_having_answered_is_adopted() -> None:
    result = only(see(intended(), snapshot=snapshot(job(intended(), PENDING, job_id=77))))
    assert (result.job_id, result.submitted_at, result.open) == (77, NOW, True)
