"""Opening an attempt: the intent first, once, and only when nothing of an earlier one can be on the cluster."""

from __future__ import annotations

from dataclasses import replace

import pytest

from api.contract.job.token import Token
from api.contract.launch import LaunchSpec
from controller.core.attempt import SendOutcome
from controller.core.observed import Grant, Observed
from controller.core.plan import Cancel, Submit

from .builders import (
    DIGEST,
    EMPTY,
    INSTALLATION,
    JOB,
    JOB_SPEC,
    NOW,
    PENDING,
    RUNNING,
    SERVICE,
    SILENT,
    actions,
    after,
    closed,
    condition,
    desired,
    gone,
    intended,
    job,
    plan,
    queued,
    ready,
    record,
    refused,
    revoked,
    see,
    see_running,
    sent,
    snapshot,
    spec,
    started,
    token,
)


def test_the_intent_is_recorded_with_the_submission() -> None:
    result = plan(desired(generation=7), see())
    assert result.actions == (Submit(token=token(0, 1)),)
    (row,) = result.attempts
    assert (row.token, row.replica, row.incarnation, row.open) == (token(0, 1), 0, 1, True)
    assert (row.generation, row.digest, row.intent_at, row.failures) == (7, DIGEST, NOW, 0)


@pytest.mark.parametrize(
    ("launch", "door"),
    [(spec(access="door"), "newest"), (spec(access="direct"), None), (replace(JOB_SPEC, access="door"), None)],
    ids=["door", "direct", "nothing listens"],
)
def test_an_attempt_with_a_door_records_under_which_key_it_is_made(launch: LaunchSpec, door: str | None) -> None:
    want = desired(spec=launch, door="newest")
    seen = see()
    result = plan(want, seen)
    assert [a.door for a in result.attempts] == [door]
    again = record(seen, result)
    (later,) = after(again, plan(replace(want, door="newer"), again)).values()
    assert later.door == door, "it stays, whatever keys come later"


def test_every_replica_is_opened() -> None:
    result = plan(desired(replicas=3), see())
    assert [a.token for a in result.attempts] == [token(0), token(1), token(2)]
    assert [a.token for a in result.actions] == [token(0), token(1), token(2)]


def test_what_was_recorded_is_not_sent_again() -> None:
    seen = see()
    again = record(seen, plan(desired(), seen))
    assert actions(again) == ()


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"snapshot": None}, id="before the first reading"),
        pytest.param({"snapshot": None, "reading_failure": SILENT}, id="never read"),
        pytest.param({"reading_failure": SILENT}, id="readings fail now"),
    ],
)
def test_nothing_is_submitted_while_the_cluster_is_not_read(changes: dict[str, object]) -> None:
    result = plan(desired(), see(**changes))
    assert (result.actions, result.attempts) == ((), ())


def test_nothing_is_submitted_for_what_is_refused_or_not_wanted() -> None:
    assert actions(see(), refused()) == ()
    assert actions(see(), desired(running=False)) == ()
    assert actions(see(), desired(replicas=0)) == ()


@pytest.mark.parametrize(
    "seen",
    [
        pytest.param(see(intended()), id="intended"),
        pytest.param(see(intended(), sent=sent(intended(), SendOutcome.UNKNOWN)), id="unknown"),
        pytest.param(see(queued(), snapshot=None), id="unseen"),
        pytest.param(see(queued()), id="absent"),
        pytest.param(see_running(started()), id="started"),
        pytest.param(see_running(ready()), id="ready"),
    ],
)
def test_an_open_attempt_is_never_doubled(seen: Observed) -> None:
    for now in (NOW, NOW + 10_000):
        assert not any(isinstance(a, Submit) for a in actions(seen, now=now))


@pytest.mark.parametrize("outcome", [SendOutcome.UNKNOWN, SendOutcome.ACCEPTED])
def test_an_unknown_submission_is_not_tried_again_under_a_new_token_until_it_is_settled(outcome: SendOutcome) -> None:
    attempt = intended(absent_since=NOW - 1000)
    seen = see(attempt, sent=sent(attempt, outcome, job_id=None))
    result = plan(desired(), seen)
    assert not any(isinstance(a, Submit) for a in result.actions)
    assert all(a.open for a in result.attempts)


def test_the_next_incarnation_waits_until_the_last_is_gone() -> None:
    last = closed(started(), "NodeFailed")
    assert actions(see(last, snapshot=None)) == ()
    assert not any(isinstance(a, Submit) for a in actions(see(last, snapshot=snapshot(job(last, RUNNING)))))
    again = actions(see(gone(last, "NodeFailed")))
    assert again == (Submit(token=token(0, 2)),)


def test_the_next_incarnation_waits_until_all_earlier_ones_are_gone() -> None:
    newest = gone(queued(0, 3), "NodeFailed")
    older = closed(started(0, 2), "NodeFailed")
    seen = see(older, newest, snapshot=snapshot(job(older, RUNNING)))
    assert not any(isinstance(a, Submit) for a in actions(seen))
    assert actions(see(gone(older), newest)) == (Submit(token=token(0, 4)),)


def test_a_replica_does_not_wait_for_another() -> None:
    other = closed(started(1), "NodeFailed")
    seen = see(other, snapshot=snapshot(job(other, RUNNING)))
    assert Submit(token=token(0)) in actions(seen, desired(replicas=2))


def test_a_job_that_no_attempt_stands_for_keeps_its_replica_from_being_opened() -> None:
    seen = see(strays=(Token(INSTALLATION, SERVICE, 1, 9),))
    assert actions(seen, desired(replicas=3)) == (Submit(token=token(0)), Submit(token=token(2)))
    last = gone(started(1), "NodeFailed")
    assert Submit(token=token(1, 2)) not in actions(see(last, strays=seen.strays), desired(replicas=2))


def test_the_pass_that_calls_an_attempt_gone_may_open_the_next() -> None:
    last = closed(started(), "NodeFailed", absent_since=NOW - 1000)
    seen = see(last, sent=sent(last, SendOutcome.REJECTED))
    assert actions(seen) == (Submit(token=token(0, 2)),)


def test_rejected_and_deferred_submissions_are_closed_even_before_a_reading() -> None:
    for outcome, word in ((SendOutcome.REJECTED, "SubmitRejected"), (SendOutcome.DEFERRED, "SubmitDeferred")):
        seen = see(intended(), snapshot=None, sent=sent(intended(), outcome, message="No."))
        (row,) = plan(desired(), seen).attempts
        assert (row.outcome, row.message, row.closed_at) == (word, "No.", NOW)


def test_an_accepted_submission_is_noted_once() -> None:
    seen = see(intended(), snapshot=None, sent=sent(intended(), SendOutcome.ACCEPTED, job_id=77))
    (row,) = plan(desired(), seen).attempts
    assert (row.job_id, row.submitted_at) == (77, NOW)
    assert plan(desired(), replace(seen, attempts=(row,)), NOW + 5).attempts == ()


def test_it_is_looked_again_when_the_back_off_is_over_and_not_before() -> None:
    last = gone(started(failures=3), "EngineExited", closed_at=NOW - 1)
    result = plan(desired(), see(last, snapshot=EMPTY))
    assert result.actions == ()
    assert result.look_again_at is not None
    assert result.look_again_at > NOW + 1
    assert actions(see(last), now=result.look_again_at) == (Submit(token=token(0, 2)),)
    assert actions(see(last), now=result.look_again_at - 0.01) == ()


@pytest.mark.parametrize(
    "seen",
    [
        pytest.param(see(closed(started()), snapshot=None), id="no snapshot"),
        pytest.param(see(gone(started()), reading_failure=replace(SILENT, since=NOW - 999)), id="silence was told"),
        pytest.param(see(closed(started()), snapshot=snapshot(job(started(), RUNNING))), id="being ended"),
    ],
)
def test_what_waits_for_the_cluster_is_not_looked_at_in_a_loop(seen: Observed) -> None:
    assert plan(desired(), seen).look_again_at is None


def test_what_is_recorded_is_sent_before_anything_is_cancelled() -> None:
    """A cancel that fails ends the pass."""
    surplus = closed(started(1))
    seen = see(surplus, snapshot=snapshot(job(surplus, RUNNING)))
    assert [type(action) for action in plan(desired(), seen).actions] == [Submit, Cancel]


WORDS = "sbatch: GPU jobs must go to partition boost; Batch job submission failed: Unspecified error"


class TestWordsOfAnOpenSubmission:
    """What sbatch said is shown, kept, and told again; it settles nothing."""

    def said(self, *, is_refusal: bool) -> Observed:
        words = sent(intended(), SendOutcome.UNKNOWN, message=WORDS, is_refusal=is_refusal)
        return see(intended(), sent=words, files=revoked(intended()))

    @pytest.mark.parametrize("is_refusal", [False, True])
    def test_they_are_shown_at_once_and_the_outcome_stays_open(self, is_refusal: bool) -> None:
        result = plan(desired(), replace(self.said(is_refusal=is_refusal), files={}))
        assert WORDS in condition(result.status, "Progressing").message
        (attempt,) = result.attempts
        assert (attempt.open, attempt.message) == (True, WORDS)
        assert [e.reason for e in result.events if WORDS in e.message] == ["SubmitUnknown"]
        assert result.actions == ()

    def test_they_outlive_the_term_that_heard_them(self) -> None:
        attempt = intended(message=WORDS)
        (ended,) = plan(desired(), see(attempt, files=revoked(attempt))).attempts
        assert (ended.outcome, ended.message) == ("NeverStarted", f"Its job never came, or left before it ran. {WORDS}")

    def test_they_are_forgotten_when_the_job_is_seen(self) -> None:
        attempt = intended(message=WORDS)
        (found,) = plan(desired(), see(attempt, snapshot=snapshot(job(attempt, PENDING)))).attempts
        assert (found.message, found.job_id) == ("", JOB)

    def test_a_refusal_in_the_site_s_words_counts_once_it_is_known_that_no_job_came(self) -> None:
        (ended,) = plan(desired(), self.said(is_refusal=True)).attempts
        assert (ended.outcome, ended.message) == ("SubmitRejected", WORDS)
        again = see(replace(ended, gone_at=NOW))
        assert actions(again, now=NOW + 10_000) == ()
        assert "refused the job: sbatch: GPU jobs" in condition(plan(desired(), again).status, "Progressing").message

    def test_other_words_are_no_refusal(self) -> None:
        (ended,) = plan(desired(), self.said(is_refusal=False)).attempts
        assert (ended.outcome, WORDS in ended.message) == ("NeverStarted", True)


class TestPace:
    """The pace of submissions lets some through now; the others wait for a turn, and nothing of them is recorded."""

    def test_what_it_lets_through_is_opened(self) -> None:
        result = plan(desired(replicas=3), see(grant=Grant(jobs=2)))
        assert result.actions == (Submit(token=token(0)), Submit(token=token(1)))
        assert [a.token for a in result.attempts] == [token(0), token(1)]
        assert result.wants_turn

    def test_one_that_waits_says_so(self) -> None:
        result = plan(desired(), see(grant=Grant(jobs=0)))
        assert (result.actions, result.attempts, result.wants_turn) == ((), (), True)
        assert result.status is not None
        progressing = next(c for c in result.status.conditions if c.type == "Progressing")
        assert progressing.message == "It waits for its turn to be submitted: many are at once."

    def test_whoever_submits_nothing_wants_no_turn(self) -> None:
        assert not plan(desired(), see(grant=Grant(jobs=1))).wants_turn
        assert not plan(desired(running=False), see(grant=Grant(jobs=0))).wants_turn
        assert not plan(desired(), see_running(started(), grant=Grant(jobs=0))).wants_turn
