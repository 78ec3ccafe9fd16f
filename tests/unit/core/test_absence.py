"""Unknown is not gone: what may be concluded from not seeing a job, and when."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from controller.core.attempt import Attempt, SendOutcome
from controller.core.job_files import JobExit, JobFiles, Unreadable
from controller.core.jobs import Snapshot
from controller.core.observed import Observed
from controller.core.plan import Cancel, Revoke

from .builders import (
    EMPTY,
    ENDED,
    JOB,
    JOB_SPEC,
    LIMITS,
    NOW,
    PENDING,
    RUNNING,
    SILENT,
    actions,
    answers,
    claim,
    closed,
    desired,
    exited,
    fails,
    gone,
    intended,
    job,
    only,
    plan,
    queued,
    ready,
    record,
    revoked,
    see,
    sent,
    snapshot,
    started,
)

GRACE = LIMITS.absence_grace
ACCOUNTING = LIMITS.accounting_grace
DOUBT = LIMITS.doubt_grace
SIGN = LIMITS.sign_grace


def absent_for(attempt: Attempt, seconds: float, **changes: Any) -> Observed:
    """An attempt that snapshots lack for so long, in their own time."""
    reading = changes.pop("snapshot", snapshot(sequence=10, began_at=NOW - 1))
    missed = replace(attempt, absent_since=reading.began_at - seconds)
    return see(missed, **{"snapshot": reading, **changes})


def newer(seen: Observed, seconds: float, **changes: Any) -> Observed:
    """The same with a later reading that shows the same."""
    assert seen.snapshot is not None
    reading = replace(seen.snapshot, sequence=seen.snapshot.sequence + 1, began_at=seen.snapshot.began_at + seconds)
    return replace(seen, snapshot=reading, **changes)


def test_the_first_snapshot_without_it_starts_the_count_in_the_snapshots_time() -> None:
    assert only(see(queued())).absent_since == NOW - 1


def test_a_snapshot_with_it_ends_the_count() -> None:
    seen = absent_for(queued(), 10, snapshot=snapshot(job(queued(), PENDING)))
    assert only(seen).absent_since is None


@pytest.mark.parametrize(("sequence", "counts"), [(4, False), (5, False), (6, True)])
def test_absence_counts_only_in_a_snapshot_that_began_after_the_send_returned(sequence: int, counts: bool) -> None:
    attempt = intended()
    for answer in (SendOutcome.UNKNOWN, SendOutcome.ACCEPTED):
        seen = see(attempt, snapshot=snapshot(sequence=sequence), sent=sent(attempt, answer, 5, job_id=JOB))
        assert (only(seen).absent_since is not None) is counts
        late = absent_for(attempt, 1000, snapshot=snapshot(sequence=sequence), sent=seen.sent)
        assert actions(late) == ((Revoke(token=attempt.token),) if counts else ())


def test_what_another_term_sent_is_settled_by_looking_too() -> None:
    assert actions(absent_for(intended(), GRACE)) == (Revoke(token=intended().token),)


def test_no_snapshot_decides_nothing() -> None:
    for attempt in (intended(), queued(absent_since=NOW - 1000), ready(absent_since=NOW - 1000)):
        for files in ({}, claim(attempt), exited(attempt), revoked(attempt)):
            seen = see(attempt, snapshot=None, reading_failure=SILENT, files=files)
            result = plan(desired(), seen)
            assert result.actions == ()
            assert all(a.open for a in result.attempts)


@pytest.mark.parametrize(("waited", "revokes"), [(0.0, False), (GRACE - 0.1, False), (GRACE, True), (GRACE * 99, True)])
def test_an_unclaimed_absent_attempt_is_revoked_after_the_grace(waited: float, revokes: bool) -> None:
    seen = absent_for(queued(), waited)
    assert actions(seen) == ((Revoke(token=queued().token),) if revokes else ())
    assert only(seen).open


def test_the_grace_is_the_snapshots_not_the_clocks() -> None:
    seen = absent_for(queued(), GRACE - 1)
    assert actions(seen, now=NOW + 3600) == ()
    assert actions(newer(seen, 1.0), now=NOW) == (Revoke(token=queued().token),)


def test_a_claimed_attempt_is_never_revoked() -> None:
    attempt = queued()
    for files in (claim(attempt), revoked(attempt), {attempt.token: JobFiles(claim=Unreadable())}):
        for waited in (0.0, GRACE, ACCOUNTING, 9999.0):
            assert not any(isinstance(a, Revoke) for a in actions(absent_for(attempt, waited, files=files)))


def test_the_attempt_is_closed_only_once_the_revocation_is_read_back() -> None:
    seen = absent_for(queued(), GRACE)
    assert only(seen).open
    settled = only(replace(seen, files=revoked(queued())))
    assert settled.outcome == "NeverStarted"


def test_a_job_that_wins_the_claim_from_the_revocation_keeps_its_attempt() -> None:
    seen = absent_for(queued(), GRACE, files=claim(queued()))
    result = only(seen)
    assert (result.open, result.claimed_at) == (True, NOW)


def test_a_revoked_attempt_whose_job_comes_late_is_closed_and_then_cleared_away() -> None:
    late = job(queued(), RUNNING)
    seen = see(queued(), snapshot=snapshot(late), files=revoked(queued()))
    first = plan(desired(), seen)
    assert first.actions == ()
    (row,) = first.attempts
    assert row.outcome == "NeverStarted"
    assert actions(record(seen, first)) == (Cancel(token=late.token, job_id=late.job_id),)


@pytest.mark.parametrize("waited", [0.0, GRACE, ACCOUNTING - 0.1])
def test_a_claimed_absent_attempt_waits_for_accounting(waited: float) -> None:
    assert only(absent_for(ready(), waited, files=claim(ready()))).open


def test_a_claimed_attempt_absent_past_the_grace_of_accounting_has_vanished() -> None:
    result = only(absent_for(ready(), ACCOUNTING, files=claim(ready())))
    assert (result.outcome, result.message) == ("Vanished", f"The job {JOB} left the cluster without a trace.")


def test_what_accounting_said_instead_of_an_answer_is_told_of_what_vanished() -> None:
    silent = snapshot(accounting_trouble="sacct: error: Access/permission denied")
    result = only(absent_for(ready(), ACCOUNTING, files=claim(ready()), snapshot=silent))
    assert result.outcome == "Vanished"
    assert result.message.endswith(" Accounting can't be asked: sacct: error: Access/permission denied")


def test_an_unreadable_claim_counts_as_claimed() -> None:
    files = {queued().token: JobFiles(claim=Unreadable())}
    assert only(absent_for(queued(), ACCOUNTING - 1, files=files)).open
    result = only(absent_for(queued(), ACCOUNTING, files=files))
    assert (result.outcome, result.message) == ("Vanished", f"The job {JOB} left the cluster without a trace.")


def test_an_exit_file_settles_at_once_what_is_absent() -> None:
    result = only(see(ready(), files=exited(ready(), 3, "EngineExited", "CUDA error")))
    assert (result.outcome, result.exit_code, result.message) == ("EngineExited", 3, "CUDA error")


def test_an_exit_file_of_an_absent_job_that_ends_by_itself_completes_it() -> None:
    result = only(see(started(), files=exited(started(), 0)), desired(spec=JOB_SPEC))
    assert (result.outcome, result.exit_code) == ("Completed", 0)


def test_an_exit_file_settles_nothing_before_a_snapshot_that_counts() -> None:
    seen = see(ready(), files=exited(ready()), sent=sent(ready(), SendOutcome.ACCEPTED, sequence=10))
    assert only(seen).open


def test_an_engine_that_answers_has_not_vanished() -> None:
    seen = absent_for(ready(), 9999.0, files=claim(ready()), probes=answers(ready(), at=NOW - 0.5))
    assert only(seen).ready


def test_an_answer_from_before_the_job_was_missed_proves_nothing() -> None:
    seen = absent_for(ready(), ACCOUNTING, files=claim(ready()), probes=answers(ready(), at=NOW - 1 - ACCOUNTING))
    assert only(seen).outcome == "Vanished"


def in_doubt(*attempts: Attempt) -> Snapshot:
    return snapshot(in_doubt=frozenset(a.token for a in attempts))


@pytest.mark.parametrize("is_doubted", [True, False])
@pytest.mark.parametrize(
    ("waited", "failures", "outcome"), [(GRACE, 2, "Vanished"), (GRACE - 0.1, 9, None), (GRACE, 1, None)]
)
def test_an_engine_that_has_fallen_silent_is_the_second_source(
    waited: float, failures: int, outcome: str | None, is_doubted: bool
) -> None:
    reading = in_doubt(ready()) if is_doubted else EMPTY
    seen = absent_for(ready(), waited, snapshot=reading, files=claim(ready()), probes=fails(ready(), failures))
    assert only(seen).outcome == outcome


def test_failures_from_before_the_job_was_missed_prove_nothing() -> None:
    seen = absent_for(ready(), GRACE, files=claim(ready()), probes=fails(ready(), 9, at=NOW - 2 - GRACE))
    assert only(seen).open


@pytest.mark.parametrize("is_doubted", [True, False])
@pytest.mark.parametrize(("quiet_for", "outcome"), [(None, None), (SIGN - 0.1, None), (SIGN, "Vanished")])
def test_an_old_sign_of_life_is_the_second_source(
    quiet_for: float | None, outcome: str | None, is_doubted: bool
) -> None:
    """Of a job that only starts nobody else can tell."""
    reading = in_doubt(started()) if is_doubted else EMPTY
    seen = absent_for(started(), GRACE, snapshot=reading, files=claim(started(), quiet_for=quiet_for))
    assert only(seen).outcome == outcome


def test_a_wrapper_without_a_sign_of_life_is_left_alone_while_its_job_is_listed_or_its_engine_answers() -> None:
    files = claim(ready(), quiet_for=9999.0)
    assert only(see(ready(), snapshot=snapshot(job(ready(), RUNNING)), files=files)).open
    assert only(absent_for(ready(), 9999.0, files=files, probes=answers(ready()))).open


@pytest.mark.parametrize(("asked_at", "ends"), [(NOW - 2, False), (NOW - 0.5, True)])
def test_an_engine_is_asked_before_a_wrapper_without_a_sign_of_life_is_believed(asked_at: float, ends: bool) -> None:
    """The first listing after a silence shows the end of a job whose engine nobody has asked since."""
    reading = snapshot(job(ready(), ENDED))
    probes = fails(ready(), 1, at=asked_at)
    seen = see(ready(), snapshot=reading, files=claim(ready(), quiet_for=9999.0), probes=probes)
    assert only(seen).open is not ends


@pytest.mark.parametrize(
    "probes", [answers(ready(), at=NOW - 2000), fails(ready(), 1)], ids=["answered before", "once"]
)
def test_of_a_mass_vanishing_nobody_is_believed_gone_whose_engine_has_not_failed(probes: Any) -> None:
    seen = absent_for(ready(), DOUBT - 0.1, snapshot=in_doubt(ready()), files=claim(ready()), probes=probes)
    assert only(seen).open


def test_in_a_mass_vanishing_a_closed_attempt_is_not_gone_either() -> None:
    """It left with the others: a listing that lies about those lies about it."""
    reading = in_doubt(ready(1))
    last = replace(closed(started()), absent_since=reading.began_at - ACCOUNTING)
    assert only(see(last, snapshot=reading, files=claim(last))).gone_at is None
    assert only(see(last, files=claim(last))).gone_at == NOW


def test_of_a_mass_vanishing_an_exit_file_is_believed() -> None:
    seen = see(ready(), snapshot=in_doubt(ready()), files=exited(ready(), 9))
    assert only(seen).outcome == "EngineExited"


@pytest.mark.parametrize(("waited", "outcome"), [(DOUBT - 0.1, None), (DOUBT, "Vanished")])
def test_of_a_mass_vanishing_engines_that_can_not_be_heard_are_believed_gone_late(
    waited: float, outcome: str | None
) -> None:
    seen = absent_for(started(), waited, snapshot=in_doubt(started()), files=claim(started()))
    assert only(seen).outcome == outcome


@pytest.mark.parametrize(("waited", "revokes"), [(GRACE, False), (DOUBT - 0.1, False), (DOUBT, True)])
def test_in_a_mass_vanishing_revoking_takes_long(waited: float, revokes: bool) -> None:
    seen = absent_for(queued(), waited, snapshot=in_doubt(queued()))
    assert actions(seen) == ((Revoke(token=queued().token),) if revokes else ())


def test_an_engine_that_comes_to_serve_unlisted_is_noted_so_that_it_is_probed() -> None:
    seen = absent_for(started(), GRACE, files=claim(started(), step="serving", port=8000))
    result = only(seen)
    assert (result.open, result.serving_at, result.port) == (True, NOW, 8000)


def test_outdated_attempts_are_not_replaced_in_a_mass_vanishing() -> None:
    changed = desired(digest="d2", generation=2)
    assert only(see(ready(), snapshot=in_doubt(ready()), files=claim(ready())), changed).open


def test_a_service_whose_engine_ends_well_has_ended_all_the_same() -> None:
    files = claim(ready(), exit=JobExit(code=0, reason="EngineExited", message=""))
    result = only(see(ready(), files=files))
    assert (result.outcome, result.message) == ("EngineExited", "It ended with exit code 0.")


class TestOtherClocks:
    """What another controller noted went by its own clock, which may be hours apart from ours."""

    @pytest.mark.parametrize("noted", [NOW - 3600, NOW + 3600, NOW - 51])
    def test_a_grace_begins_anew_with_each_term(self, noted: float) -> None:
        attempt = replace(ready(), absent_since=noted)
        seen = see(attempt, term_began_at=NOW - 50, files=claim(attempt))
        found = only(seen)
        assert (found.open, found.absent_since) == (True, EMPTY.began_at)
        closed_ = replace(closed(attempt), absent_since=noted)
        seen = see(closed_, term_began_at=NOW - 50, files=claim(attempt))
        found = next(a for a in plan(desired(running=False), seen).attempts if a.token == attempt.token)
        assert (found.gone_at, found.absent_since) == (None, EMPTY.began_at)

    def test_a_grace_of_this_term_goes_on(self) -> None:
        attempt = replace(ready(), absent_since=NOW - 1 - ACCOUNTING)
        found = only(see(attempt, term_began_at=NOW - 100, files=claim(attempt)))
        assert found.outcome == "Vanished"

    def test_times_ahead_of_us_are_taken_for_now(self) -> None:
        ahead = started(launched_at=NOW + 3600, claimed_at=NOW + 3600)
        seen = see(ahead, snapshot=snapshot(job(ahead, RUNNING)), files=claim(ahead, step="starting"))
        found = only(seen)
        assert (found.launched_at, found.claimed_at, found.started_at) == (NOW, NOW, ahead.started_at)

    def test_a_replica_that_failed_in_our_future_does_not_wait_for_it(self) -> None:
        crashed = gone(started(), "EngineExited", closed_at=NOW + 3600)
        assert any(a.incarnation == 2 for a in plan(desired(), see(crashed)).attempts)

    @pytest.mark.parametrize("told", [NOW - 3600, NOW + 3600])
    def test_a_start_that_the_clusters_clock_can_not_mean_is_now(self, told: float) -> None:
        """Else a start would be overdue at once, for ever, where the cluster's clock is behind ours."""
        waiting = queued()
        seen = see(waiting, snapshot=snapshot(job(waiting, RUNNING, started_at=told)))
        assert only(seen).started_at == NOW
