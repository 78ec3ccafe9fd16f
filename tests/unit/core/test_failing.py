"""After an end: wait how long, try again or not, and what clears the count of failures."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from controller.core.attempt import Attempt, SendOutcome
from controller.core.closings import CLOSINGS
from controller.core.desired import Desired
from controller.core.job_files import Held, JobFiles
from controller.core.limits import Limits
from controller.core.outcomes import NOT_A_FAULT, WISHED, Outcome
from controller.core.plan import Submit
from controller.core.retries import InARow, after, retry_at

from .builders import (
    DIGEST,
    ENDED,
    JOB,
    JOB_SPEC,
    LIMITS,
    NOW,
    actions,
    condition,
    desired,
    gone,
    intended,
    job,
    plan,
    queued,
    ready,
    see,
    sent,
    snapshot,
    spec,
    started,
    token,
)

CRASHED = gone(started(), "EngineExited")


def opens(last: Attempt, wanted: Desired | None = None, now: float = NOW + 10_000) -> bool:
    return any(isinstance(a, Submit) for a in actions(see(last), wanted, now))


def ended(outcome: str, *, ran: float, failures: int = 0, **changes: Any) -> Attempt:
    """An attempt that ran so long."""
    return gone(started(started_at=NOW - 50 - ran, failures=failures, **changes), outcome)


# Counting


@pytest.mark.parametrize(
    ("last", "count"),
    [
        pytest.param(ended("EngineExited", ran=5000, failures=2), 3, id="a fault counts however long it ran"),
        pytest.param(ended("NodeFailed", ran=5000, failures=2), 0, id="no fault after a while clears the count"),
        pytest.param(ended("NodeFailed", ran=59, failures=2), 3, id="a quick end counts whatever ended it"),
        pytest.param(ended("NodeFailed", ran=61, failures=2), 0, id="not quick any more"),
        pytest.param(gone(queued(failures=2), "NeverStarted"), 3, id="what never started ended quickly"),
        pytest.param(gone(intended(failures=2), "SubmitDeferred"), 3, id="so did what was deferred"),
        pytest.param(ended("Stopped", ran=1, failures=2), 0, id="what people wished is no failure"),
        pytest.param(ended("Outdated", ran=1, failures=2), 0, id="nor is a change"),
        pytest.param(ended("ScaledDown", ran=1, failures=2), 0, id="nor is scaling"),
        pytest.param(queued(failures=2), 0, id="nor is what is open"),
    ],
)
def test_failures_in_a_row(last: Attempt, count: int) -> None:
    assert after(last, LIMITS).failures == count


@pytest.mark.parametrize(
    ("ready_for", "count"), [(LIMITS.steady_after - 1, 5), (LIMITS.steady_after, 1), (LIMITS.steady_after * 9, 1)]
)
def test_having_been_ready_long_enough_clears_what_was_before(ready_for: float, count: int) -> None:
    last = gone(ready(failures=4, ready_at=NOW - 50 - ready_for, started_at=NOW - 9000), "EngineExited")
    assert after(last, LIMITS).failures == count


def test_time_spent_unready_does_not_count_as_steady() -> None:
    last = gone(ready(failures=4, ready_at=NOW - 9000, unready_since=NOW - 8900), "Unhealthy")
    assert after(last, LIMITS).failures == 5


def test_the_next_attempt_carries_the_count() -> None:
    result = plan(desired(), see(gone(started(failures=2, faults=1), "EngineExited")), NOW + 1000)
    assert [(a.failures, a.faults) for a in result.attempts] == [(3, 2)]


@pytest.mark.parametrize("outcome", ["SubmitDeferred", "NeverStarted", "NodeFailed", "Preempted"])
def test_what_is_no_fault_makes_it_wait_and_never_counts_towards_giving_up(outcome: str) -> None:
    """Five submissions that were put off and one failure are one failure."""
    last = gone(intended(failures=5, faults=1), outcome)
    assert after(last, LIMITS) == InARow(failures=6, faults=1)
    wanted = desired(spec=spec(max_failures=5))
    assert opens(gone(started(failures=6, faults=1), "EngineExited"), wanted)
    assert not opens(gone(started(failures=6, faults=4), "EngineExited"), wanted)


MISTAKES = [
    ("EngineExited", 127, "bash: vlllm: command not found"),
    ("EngineExited", 126, "Permission denied"),
    ("EngineExited", 255, 'FATAL: exec: "vlllm": executable file not found in $PATH'),
    ("EngineExited", 1, "HFValidationError: Repo id must be in the form 'repo_name' or 'namespace/repo_name'"),
    ("EngineExited", 1, "OSError: no/such is not a local folder and is not a valid model identifier listed on"),
    ("EngineExited", 1, "RepositoryNotFoundError: 404 Client Error."),
    ("EngineExited", 2, "vllm serve: error: unrecognized arguments: --max-model-length=4096"),
    ("ImageFailed", 1, "image /x.sif on n1: No such file or directory"),
    ("OutOfMemory", 137, "The job used more than the 1024 MB of memory that it asked for, and was ended for it."),
    ("PythonMissing", 1, "No Python 3.9 or later with ctypes, json and ssl was found on n1."),
]


@pytest.mark.parametrize(("outcome", "code", "message"), MISTAKES)
def test_what_trying_again_does_not_mend_is_tried_twice(outcome: str, code: int, message: str) -> None:
    first = gone(started(), outcome, exit_code=code, message=message)
    again = gone(started(faults=1), outcome, exit_code=code, message=message)
    assert (opens(first), opens(again)) == (True, False)
    assert message in condition(plan(desired(), see(again)).status, "Progressing").message
    assert not opens(first, desired(spec=spec(max_failures=1)))


def test_what_wants_more_memory_than_it_asks_for_is_given_up_though_it_was_ready_each_time() -> None:
    wanted = desired(spec=spec(max_failures=3))
    for faults, goes_on in ((1, True), (2, False)):
        quickly = gone(ready(faults=faults, ready_at=NOW - 80), "OutOfMemory", exit_code=137)
        assert opens(quickly, wanted) is goes_on
        assert opens(gone(ready(faults=faults, ready_at=NOW - 80), "EngineExited", exit_code=137), wanted)
    assert opens(gone(ready(faults=2, ready_at=NOW - 9999), "OutOfMemory"), wanted), "it served long"


@pytest.mark.parametrize(
    ("outcome", "code", "message"),
    [
        ("EngineExited", 1, "torch.OutOfMemoryError: CUDA out of memory."),
        ("EngineExited", 1, "FileNotFoundError: [Errno 2] No such file or directory: '/tmp/ipc'"),
        ("ImageFailed", 255, "apptainer pull ended with 255: connection refused"),
        ("Failed", 127, ""),
    ],
)
def test_what_may_be_otherwise_the_next_time_is_tried_as_often_as_was_said(
    outcome: str, code: int, message: str
) -> None:
    assert opens(gone(started(faults=3), outcome, exit_code=code, message=message), desired(spec=spec(max_failures=5)))


# Backing off


@pytest.mark.parametrize("failures", range(1, 40))
def test_the_back_off_doubles_up_to_its_most_and_is_spread_by_a_quarter_at_most(failures: int) -> None:
    nominal = min(LIMITS.backoff_first * 2 ** (failures - 1), LIMITS.backoff_most)
    pause = retry_at(CRASHED, failures, LIMITS) - (CRASHED.closed_at or 0.0)
    assert nominal <= pause <= nominal * 1.25


def test_the_spread_differs_from_token_to_token_and_never_from_look_to_look() -> None:
    times = {retry_at(gone(started(replica), "EngineExited"), 5, LIMITS) for replica in range(20)}
    assert len(times) == 20
    assert retry_at(CRASHED, 5, LIMITS) == retry_at(CRASHED, 5, LIMITS)


def test_without_failures_there_is_no_pause() -> None:
    last = ended("NodeFailed", ran=5000)
    assert retry_at(last, 0, LIMITS) == last.closed_at
    assert opens(last, now=NOW)


def test_deferred_submissions_back_off_and_are_never_given_up() -> None:
    for failures in (0, 5, 500):
        last = gone(intended(failures=failures, closed_at=NOW), "SubmitDeferred", closed_at=NOW)
        assert not opens(last, now=NOW + 1)
        assert opens(last, now=NOW + LIMITS.backoff_most * 1.25)


def test_limits_are_arguments() -> None:
    last = gone(started(), "EngineExited", closed_at=NOW)
    limits = Limits(backoff_first=1000, backoff_most=1000)
    assert plan(desired(), see(last), NOW + 999, limits).actions == ()


# Giving up


@pytest.mark.parametrize(("before", "given_up"), [(0, False), (3, False), (4, True), (9, True)])
def test_a_service_that_never_starts_is_given_up_after_so_many_failures(before: int, given_up: bool) -> None:
    wanted = desired(spec=spec(max_failures=5))
    last = gone(started(faults=before), "EngineExited")
    assert opens(last, wanted) is not given_up
    result = condition(plan(wanted, see(last), NOW + 10_000).status, "Progressing")
    assert (result.reason == "Failed") is given_up


def test_giving_up_says_how_often_and_why() -> None:
    last = gone(started(faults=4), "EngineExited", message="CUDA out of memory.")
    message = condition(plan(desired(), see(last)).status, "Progressing").message
    assert "5 times in a row" in message
    assert "EngineExited: CUDA out of memory." in message
    assert ". To have it tried again: ai-factory services restart" in message


def test_a_service_that_was_ready_is_never_given_up() -> None:
    assert opens(gone(ready(faults=99), "EngineExited"))


def test_a_job_that_ran_counts_as_failed_all_the_same() -> None:
    assert not opens(gone(ready(faults=99), "EngineExited"), desired(spec=JOB_SPEC))


@pytest.mark.parametrize("outcome", sorted(NOT_A_FAULT - {Outcome.COMPLETED}))
def test_what_is_no_fault_never_gives_up(outcome: str) -> None:
    assert opens(gone(started(faults=99), outcome))


def test_what_a_policy_closes_is_wished_and_so_no_fault() -> None:
    assert {outcome for outcome, _, _ in CLOSINGS} <= WISHED <= NOT_A_FAULT


def test_giving_up_ends_with_a_new_generation_or_another_launch() -> None:
    last = gone(started(faults=99), "EngineExited")
    assert opens(last, desired(generation=2))
    assert opens(last, desired(generation=2, digest="d2"))


def test_another_launch_starts_without_failures_and_without_a_pause() -> None:
    last = gone(started(faults=99), "EngineExited", closed_at=NOW)
    result = plan(desired(generation=2, digest="d2"), see(last))
    assert [a.failures for a in result.attempts] == [0]
    assert result.actions == (Submit(token=token(0, 2)),)


@pytest.mark.parametrize("changes", [{"generation": 2}, {"generation": 2, "digest": "d2"}])
def test_what_slurm_refused_is_sent_again_only_after_a_change(changes: dict[str, Any]) -> None:
    first = plan(desired(), see(intended(), sent=sent(intended(), SendOutcome.REJECTED, message="Invalid account.")))
    (closed,) = first.attempts
    assert condition(first.status, "Progressing").message.startswith("Slurm refused the job: Invalid account.")
    last = replace(closed, gone_at=NOW)
    assert not opens(last)
    assert opens(last, desired(**changes))


def test_a_job_that_completed_is_not_run_again() -> None:
    done = gone(started(), "Completed")
    assert not opens(done, desired(spec=JOB_SPEC))
    assert not opens(done, desired(spec=JOB_SPEC, generation=2))
    assert opens(done, desired(spec=JOB_SPEC, generation=2, digest="d2"))
    assert condition(plan(desired(spec=JOB_SPEC), see(done)).status, "Progressing").reason == "Completed"


def test_replicas_are_given_up_one_by_one() -> None:
    failed, fine = gone(started(0, faults=99), "EngineExited"), gone(started(1), "NodeFailed")
    result = plan(desired(replicas=2), see(failed, fine), NOW + 1000)
    assert result.actions == (Submit(token=token(1, 2)),)
    assert condition(result.status, "Progressing").reason == "Failed"


def test_nothing_waits_for_what_was_given_up() -> None:
    assert plan(desired(), see(gone(started(faults=99, digest=DIGEST), "EngineExited"))).look_again_at is None


def test_a_volume_that_another_service_holds_is_not_tried_again_until_something_changes() -> None:
    refused = replace(gone(started(), "VolumeInUse"), message="the volume /v is in use by af-i-other-0-1")
    assert not opens(refused)
    assert "the volume /v is in use by af-i-other-0-1" in str(plan(desired(), see(refused)).status)
    assert opens(refused, desired(generation=2))


# What is told of an end


def ends(state: str, files: JobFiles | None = None, **changes: Any) -> tuple[str | None, str]:
    """Return outcome and message of an attempt whose job ended so, before anything of it listened."""
    attempt = queued()
    seen = see(
        attempt,
        snapshot=snapshot(job(attempt, ENDED, state=state, **changes)),
        files={attempt.token: files or JobFiles()},
    )
    (closed,) = plan(desired(), seen).attempts
    return closed.outcome, closed.message


def test_a_job_that_left_no_record_is_told_by_its_last_words_and_slurm_s() -> None:
    outcome, message = ends(
        "FAILED",
        JobFiles(last_words="launch.sh: line 3: syntax error"),
        reason="JobLaunchFailure",
        advice="Tell the site.",
    )
    assert outcome == "Failed"
    assert message == (
        "The job ended as FAILED. Slurm says: JobLaunchFailure. Tell the site. Its last words:\n"
        "launch.sh: line 3: syntax error"
    )
    assert ends("FAILED", reason="NonZeroExitCode", exit_code=2)[1] == "The job ended as FAILED with exit code 2."


def test_what_slurm_says_of_a_node_that_failed_is_told() -> None:
    assert ends("NODE_FAIL", reason="NodeDown")[1] == "The job's node failed. Slurm says: NodeDown."


def test_a_job_that_is_cancelled_on_a_node_before_it_began_may_be_the_prolog_s_work() -> None:
    outcome, message = ends("CANCELLED", node="n1")
    assert (outcome, "prolog failed (`sinfo -R --nodes=n1`" in message) == ("Cancelled", True)
    assert ends("CANCELLED")[1] == "The job was cancelled by hand."
    claimed = JobFiles(claim=Held(job_id=JOB))
    assert ends("CANCELLED", claimed, node="n1")[1] == "The job was cancelled by hand."
