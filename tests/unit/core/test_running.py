"""A job that is seen: what each phase, each step and each probe does to its attempt."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from api.contract.job.words import Lane
from api.contract.launch import LaunchSpec, Resources
from controller.core.attempt import Attempt, Probe
from controller.core.evidence import CLOCKS_APART
from controller.core.job_files import JobFiles, Unreadable
from controller.core.jobs import JobPhase
from controller.core.observed import Observed
from controller.core.published import Endpoint

from .builders import (
    COMPLETING,
    DIGEST,
    ENDED,
    HEALTH,
    JOB_SPEC,
    LIMITS,
    NOW,
    PENDING,
    RUNNING,
    SILENT,
    SUSPENDED,
    answers,
    claim,
    closed,
    condition,
    desired,
    endpoint,
    exited,
    fails,
    job,
    only,
    plan,
    queued,
    ready,
    refused,
    see,
    see_running,
    snapshot,
    spec,
    started,
)

BEGUN = queued(claimed_at=NOW - 90)


def showing(attempt: Attempt, phase: JobPhase, files: Any = None, probes: Any = None, **changes: Any) -> Observed:
    return see(attempt, snapshot=snapshot(job(attempt, phase, **changes)), files=files or {}, probes=probes or {})


# From the queue to the node


def test_a_queued_job_changes_nothing() -> None:
    assert only(showing(queued(), PENDING)) == queued()


def test_a_job_that_runs_has_a_node_and_an_address() -> None:
    result = only(showing(queued(), RUNNING, started_at=NOW - 8, ends_at=NOW + 600))
    assert (result.started_at, result.node, result.host, result.ends_at) == (NOW - 8, "n1", "10.0.0.1", NOW + 600)


def test_a_node_without_a_known_address_answers_under_its_name() -> None:
    seen = see(queued(), snapshot=snapshot(job(queued(), RUNNING, node="n7")))
    assert only(seen).host == "n7"


@pytest.mark.parametrize(
    ("step", "port", "launched", "serving"),
    [
        (None, None, False, False),
        ("claimed", None, False, False),
        ("image", None, False, False),
        ("starting", None, True, False),
        ("loading", 8123, True, False),
        ("serving", 8123, True, True),
        ("serving", None, True, False),
    ],
)
def test_the_wrappers_steps_are_noted(step: str | None, port: int | None, launched: bool, serving: bool) -> None:
    result = only(showing(BEGUN, RUNNING, claim(BEGUN, step=step, port=port)))
    assert (result.launched_at == NOW, result.serving_at == NOW, result.port) == (launched, serving, port)


def test_what_was_noted_is_not_moved() -> None:
    known = ready()
    assert only(see_running(known), now=NOW + 50) == known


# Requeued by somebody


def test_a_job_seen_running_and_then_pending_was_requeued() -> None:
    result = only(showing(started(), PENDING))
    assert result.outcome == "Requeued"


def test_a_claimed_job_that_is_pending_was_requeued() -> None:
    assert only(showing(BEGUN, PENDING, claim(BEGUN))).outcome == "Requeued"


@pytest.mark.parametrize(
    ("claimed_before", "is_over"), [(0.0, False), (CLOCKS_APART, False), (CLOCKS_APART + 0.1, True)]
)
def test_a_claim_that_may_be_newer_than_the_reading_is_no_requeue(claimed_before: float, is_over: bool) -> None:
    attempt = queued(claimed_at=NOW - 1 - claimed_before)
    assert only(showing(attempt, PENDING, claim(attempt))).open is not is_over


def test_a_claim_read_for_the_first_time_beside_an_older_reading_is_no_requeue() -> None:
    result = only(showing(queued(), PENDING, claim(queued())))
    assert (result.open, result.claimed_at) == (True, NOW)


def test_a_job_restarted_before_it_ever_began_is_not_over() -> None:
    assert only(showing(queued(), PENDING, state="REQUEUED", reason="BeginTime")).open


# Patience while it starts


@pytest.mark.parametrize(
    ("attempt", "step", "outcome"),
    [
        pytest.param(started(launched_at=NOW - 601), "starting", "StartupTimeout", id="too long starting"),
        pytest.param(started(launched_at=NOW - 599), "starting", None, id="starting"),
        pytest.param(started(launched_at=None, started_at=NOW - 9000), "image", None, id="an image takes its time"),
        pytest.param(started(launched_at=None, started_at=NOW - 601), None, "StartupTimeout", id="no sign of life"),
        pytest.param(started(launched_at=NOW - 601), "slot", "StartupTimeout", id="it hangs over its slot"),
        pytest.param(started(launched_at=NOW - 601), "volume", "StartupTimeout", id="it hangs over a volume"),
        pytest.param(started(launched_at=NOW - 599), "volume", None, id="it waits for a volume"),
        pytest.param(started(launched_at=None, started_at=NOW - 599), None, None, id="no sign yet"),
    ],
)
def test_a_start_may_not_take_for_ever(attempt: Attempt, step: str | None, outcome: str | None) -> None:
    assert only(showing(attempt, RUNNING, claim(attempt, step=step))).outcome == outcome


@pytest.mark.parametrize("step", ["slot", "volume"])
def test_its_start_is_timed_from_when_its_image_is_there(step: str) -> None:
    attempt = started(launched_at=None, started_at=NOW - 9000)
    result = only(showing(attempt, RUNNING, claim(attempt, step=step)))
    assert (result.open, result.launched_at) == (True, NOW)


@pytest.mark.parametrize("step", ["slot", "volume"])
def test_a_job_that_listens_nowhere_is_not_ready_before_its_engine_runs(step: str) -> None:
    attempt = started(launched_at=NOW - 5)
    assert only(showing(attempt, RUNNING, claim(attempt, step=step)), desired(spec=JOB_SPEC)).ready_at is None
    hanging = started(launched_at=NOW - 1801)
    result = only(showing(hanging, RUNNING, claim(hanging, step=step)), desired(spec=JOB_SPEC))
    assert result.outcome == "StartupTimeout"


def test_a_job_without_a_sign_of_life_is_told_of_the_shared_folder() -> None:
    attempt = started(launched_at=None, started_at=NOW - 601)
    assert "RUN_DIR: is it shared" in only(showing(attempt, RUNNING)).message


def test_a_starting_job_is_looked_at_again_soon() -> None:
    assert plan(desired(), see_running(started())).look_again_at == NOW + LIMITS.glance
    assert plan(desired(), see_running(ready())).look_again_at is None


# Probes


def test_the_first_good_probe_makes_it_ready() -> None:
    attempt = started(port=8000, serving_at=NOW - 5)
    result = only(showing(attempt, RUNNING, claim(attempt, step="serving", port=8000), answers(attempt)))
    assert (result.ready, result.ready_at) == (True, NOW)


@pytest.mark.parametrize(("failures", "is_ready", "is_open"), [(1, True, True), (2, False, True), (3, False, False)])
def test_failed_probes_first_cost_the_prompts_and_then_the_attempt(
    failures: int, is_ready: bool, is_open: bool
) -> None:
    result = only(see_running(ready(), probes=fails(ready(), failures)))
    assert (result.ready, result.open) == (is_ready, is_open)
    assert result.outcome == (None if is_open else "Unhealthy")


def test_an_engine_that_answers_again_is_ready_again() -> None:
    result = only(see_running(ready(unready_since=NOW - 9), probes=answers(ready())))
    assert (result.ready, result.ready_at) == (True, ready().ready_at)


def test_no_probe_yet_changes_nothing() -> None:
    assert only(see_running(ready(), probes={})) == ready()


@pytest.mark.parametrize("phase", [SUSPENDED, COMPLETING])
def test_a_job_that_does_not_run_is_not_ready(phase: JobPhase) -> None:
    result = only(showing(ready(), phase, claim(ready()), answers(ready())))
    assert (result.open, result.ready, result.unready_since) == (True, False, NOW)


def test_what_it_was_launched_with_is_not_guessed_at() -> None:
    """A refusal leaves running attempts alone: their own patience is not known any more."""
    slow = started(launched_at=NOW - 5000)
    assert only(showing(slow, RUNNING, claim(slow, step="starting")), refused()).open
    poor = only(see_running(ready(), probes=fails(ready(), 50)), refused())
    assert (poor.open, poor.ready) == (True, False)


def test_an_attempt_is_not_judged_by_what_another_launch_asks_for() -> None:
    hasty = desired(digest="d2", generation=2, spec=spec(health=replace(HEALTH, retries=1, startup_timeout=1)))
    poor = see_running(ready(), probes=fails(ready(), 2), reading_failure=SILENT)
    assert only(poor, hasty).open
    slow = started(launched_at=NOW - 500)
    assert only(showing(slow, RUNNING, claim(slow, step="starting")), hasty).outcome == "Outdated"


def test_since_when_it_does_not_answer_is_not_moved() -> None:
    known = ready(unready_since=NOW - 9)
    assert only(see_running(known, probes=fails(known, 2))).unready_since == NOW - 9


# Nothing listens


def test_where_nothing_listens_running_is_ready() -> None:
    attempt = started(launched_at=None)
    result = only(showing(attempt, RUNNING, claim(attempt, step="starting")), desired(spec=JOB_SPEC))
    assert (result.launched_at, result.ready_at) == (NOW, NOW)


def test_where_nothing_listens_a_suspended_job_that_goes_on_is_ready_again() -> None:
    attempt = started(ready_at=NOW - 80, unready_since=NOW - 20)
    assert only(showing(attempt, RUNNING, claim(attempt, step="starting")), desired(spec=JOB_SPEC)).ready


def test_where_nothing_listens_no_probe_is_missed() -> None:
    attempt = started(launched_at=NOW - 9999)
    assert only(showing(attempt, RUNNING, claim(attempt, step="starting")), desired(spec=JOB_SPEC)).open


# The end


@pytest.mark.parametrize(
    ("state", "outcome"),
    [
        ("CANCELLED", "Cancelled"),
        ("PREEMPTED", "Preempted"),
        ("TIMEOUT", "TimeLimit"),
        ("DEADLINE", "TimeLimit"),
        ("NODE_FAIL", "NodeFailed"),
        ("BOOT_FAIL", "NodeFailed"),
        ("OUT_OF_MEMORY", "OutOfMemory"),
        ("FAILED", "Failed"),
        ("COMPLETED", "Exited"),
    ],
)
def test_an_ended_job_closes_its_attempt(state: str, outcome: str) -> None:
    for attempt, probes in ((started(), {}), (ready(), fails(ready()))):
        result = only(replace(showing(attempt, ENDED, claim(attempt), state=state, exit_code=2), probes=probes))
        assert (result.outcome, result.exit_code, result.closed_at) == (outcome, 2, NOW)
        assert result.message


def test_the_end_of_a_job_that_used_too_much_memory_says_how_much_it_asked_for() -> None:
    told = "killed by SIGKILL"
    files = exited(started(), 137, message=told)
    result = only(showing(started(), ENDED, files, state="OUT_OF_MEMORY"))
    assert (result.outcome, result.exit_code) == ("OutOfMemory", 137)
    assert "more than the 1024 MB" in result.message
    assert "from 1024M to 2048M" in result.message


def test_where_the_site_says_how_much_memory_its_end_names_the_key() -> None:
    left_out = desired(spec=spec(resources=Resources(memory_mb=None)))
    result = only(showing(started(), ENDED, claim(started()), state="OUT_OF_MEMORY"), left_out)
    assert "resources.memory" in result.message
    assert "None" not in result.message


@pytest.mark.parametrize("phase", [RUNNING, COMPLETING, ENDED])
def test_where_a_job_ran_is_known_though_it_ended_before_it_was_seen_to_run(phase: JobPhase) -> None:
    files = exited(queued(), 7, "PrologueFailed")
    result = only(showing(queued(), phase, files, node="n1", started_at=NOW - 3))
    assert (result.outcome, result.node, result.started_at) == ("PrologueFailed", "n1", NOW - 3)


@pytest.mark.parametrize("phase", [RUNNING, COMPLETING])
def test_of_an_engine_that_failed_slurm_is_heard_first_but_not_for_long(phase: JobPhase) -> None:
    """Its own record can't tell that it was ended for want of memory."""
    first = only(showing(ready(), phase, exited(ready(), 137)))
    assert (first.open, first.ready) == (True, False)
    later_on = later(showing(first, phase, exited(first, 137)), LIMITS.teardown_grace)
    assert only(later_on).outcome == "EngineExited"


@pytest.mark.parametrize("state", ["CANCELLED", "NODE_FAIL", "FAILED", "COMPLETED"])
def test_an_attempt_stays_open_while_its_engine_answers_although_its_job_ended(state: str) -> None:
    """Wrapper and guard were killed, or slurmctld is wrong: whoever says so, prompts are answered."""
    first = only(showing(ready(), ENDED, claim(ready()), state=state))
    assert (first.ready, first.absent_since) == (True, NOW - 1), "it is asked first"
    seen = replace(showing(first, ENDED, claim(first), state=state), probes=answers(first))
    assert only(later(seen, 9999.0)).ready
    assert only(replace(seen, probes=fails(first, 1))).open, "one failure proves nothing"
    assert not only(replace(seen, probes=fails(first, 2))).open


def test_where_nobody_can_ask_the_engine_an_ended_job_is_believed_after_a_while() -> None:
    first = only(showing(ready(), ENDED, claim(ready())))
    seen = showing(first, ENDED, claim(first))
    assert only(later(seen, LIMITS.accounting_grace - 1)).open
    assert not only(later(seen, LIMITS.accounting_grace)).open


def later(seen: Observed, seconds: float) -> Observed:
    """The same in a later snapshot, and answers as fresh."""
    assert seen.snapshot is not None
    probes = {token: replace(probe, at=probe.at + seconds) for token, probe in seen.probes.items()}
    return replace(seen, snapshot=replace(seen.snapshot, began_at=seen.snapshot.began_at + seconds), probes=probes)


@pytest.mark.parametrize(
    ("state", "reason", "outcome"),
    [
        ("FAILED", "EngineExited", "EngineExited"),
        ("COMPLETED", "ImageFailed", "ImageFailed"),
        ("FAILED", "TimeLimit", "TimeLimit"),
        ("CANCELLED", "Terminated", "Cancelled"),
        ("TIMEOUT", "Terminated", "TimeLimit"),
        ("NODE_FAIL", "EngineExited", "NodeFailed"),
    ],
)
def test_slurm_knows_best_what_came_from_outside_and_the_wrapper_the_rest(
    state: str, reason: str, outcome: str
) -> None:
    result = only(showing(ready(), ENDED, exited(ready(), 7, reason, "Why."), state=state, exit_code=1))
    assert (result.outcome, result.exit_code) == (outcome, 7)


def test_a_time_limit_that_the_wrapper_was_warned_of_is_called_so() -> None:
    result = only(showing(ready(), RUNNING, exited(ready(), 143, "TimeLimit", "Warned.")))
    assert (result.outcome, result.message) == ("TimeLimit", "The job came to its time limit.")


def test_an_exit_record_is_believed_while_the_job_still_shows() -> None:
    for phase in (RUNNING, COMPLETING):
        assert only(showing(ready(), phase, exited(ready(), 1, "PortTaken"))).outcome == "PortTaken"


def test_who_terminated_it_is_said_by_slurm() -> None:
    for phase in (RUNNING, COMPLETING):
        result = only(showing(ready(), phase, exited(ready(), 143, "Terminated")))
        assert (result.open, result.ready) == (True, False)
    files = exited(ready(), 143, "Terminated")
    assert only(showing(ready(), PENDING, files)).outcome == "Requeued"
    assert only(showing(ready(), ENDED, files, state="PREEMPTED")).outcome == "Preempted"
    assert only(see(ready(), files=files)).outcome == "Terminated"


@pytest.mark.parametrize(
    ("launched", "state", "code", "outcome"),
    [
        (JOB_SPEC, "COMPLETED", 0, "Completed"),
        (JOB_SPEC, "FAILED", 3, "EngineExited"),
        (spec(), "COMPLETED", 0, "EngineExited"),
    ],
)
def test_only_a_job_completes(launched: LaunchSpec, state: str, code: int, outcome: str) -> None:
    seen = showing(started(), ENDED, exited(started(), code), state=state)
    assert only(seen, desired(spec=launched)).outcome == outcome


def test_a_job_completes_without_a_record_too() -> None:
    assert only(showing(started(), ENDED, state="COMPLETED"), desired(spec=JOB_SPEC)).outcome == "Completed"


def test_a_signal_is_named() -> None:
    assert "signal 9" in only(showing(started(), ENDED, state="FAILED", signal=9)).message


# Endpoints


def endpoints(seen: Observed, **changes: Any) -> tuple[Endpoint, ...] | None:
    return plan(desired(**changes), seen).endpoints


def test_an_attempt_becomes_an_endpoint_when_it_is_first_ready() -> None:
    assert endpoints(see_running(started(port=8000, serving_at=NOW - 5))) is None
    assert endpoints(see_running(ready())) == (endpoint(ready()),)


def test_an_endpoint_that_does_not_answer_stays_listed_as_unready() -> None:
    seen = see_running(ready(), probes=fails(ready(), 2), endpoints=(endpoint(ready()),))
    assert endpoints(seen) == (endpoint(ready(), up=False),)


def test_unchanged_endpoints_are_not_written() -> None:
    assert endpoints(see_running(ready(), endpoints=(endpoint(ready()),))) is None


def test_a_closed_attempt_is_no_endpoint() -> None:
    assert endpoints(see(closed(ready()), endpoints=(endpoint(ready()),))) == ()


def test_an_endpoint_names_the_model_that_its_attempt_was_launched_with() -> None:
    first, second = ready(0), ready(1)
    seen = see_running(first, second, endpoints=(endpoint(first, ("old",)), endpoint(second, ("old",))))
    changed = desired(replicas=2, digest="d2", generation=2, spec=spec(model="new"))
    assert plan(changed, seen).endpoints is None
    fresh = ready(0, 2, digest="d2", generation=2, lane=Lane.B, beside="Changed")
    later = see_running(first, fresh, second, endpoints=seen.endpoints)
    expected = endpoint(first, ("old",), up=False), endpoint(fresh, ("new",)), endpoint(second, ("old",))
    assert plan(changed, later).endpoints == expected
    assert plan(refused(replicas=2), seen).endpoints is None


def test_a_mass_vanishing_leaves_endpoints_as_they_are() -> None:
    reading = snapshot(in_doubt=frozenset({ready().token}))
    seen = see(ready(), snapshot=reading, files=claim(ready()), endpoints=(endpoint(ready()),))
    assert endpoints(seen) is None


def test_a_garbled_claim_does_not_end_a_running_job() -> None:
    files = {ready().token: JobFiles(claim=Unreadable(), step="serving", port=8000)}
    assert only(see_running(ready(), files=files)).ready


def test_health_is_what_the_recipe_says() -> None:
    patient = desired(spec=spec(health=replace(HEALTH, retries=10)), digest=DIGEST)
    assert only(see_running(ready(), probes=fails(ready(), 9)), patient).open
    assert not only(see_running(ready(), probes=fails(ready(), 10)), patient).open


# What nobody can ask

UNASKED = Probe(at=NOW - 0.5, ready=False, failures=0, message="its door was made under the key k1", asked=False)


@pytest.mark.parametrize("launched_at", [NOW - 89, NOW - 100_000], ids=["just now", "long ago"])
@pytest.mark.parametrize("begun", [started(door="k1"), ready(door="k1")], ids=["starting", "ready before"])
def test_an_engine_that_nobody_can_ask_is_not_ready_and_not_judged(begun: Attempt, launched_at: float) -> None:
    begun = replace(begun, launched_at=launched_at)
    seen = see_running(begun, probes={begun.token: UNASKED})
    found = only(seen, now=NOW + 100_000)
    assert (found.open, found.ready) == (True, False)
    message = condition(plan(desired(), seen).status, "Progressing").message
    assert message == "The job 501 runs on n1, but its engine can't be asked: its door was made under the key k1."


def test_its_silence_proves_nothing_of_a_job_that_is_missed() -> None:
    missed = ready(door="k1", absent_since=NOW - 20, unready_since=NOW - 50)
    silent = see_running(missed, snapshot=snapshot(began_at=NOW - 1), probes=fails(missed))
    unasked = see_running(missed, snapshot=snapshot(began_at=NOW - 1), probes={missed.token: UNASKED})
    assert (only(silent).open, only(unasked).open) == (False, True)


def test_an_endpoint_says_which_door_it_has() -> None:
    (found,) = plan(desired(), see_running(ready(door="k1"))).endpoints or ()
    assert found == replace(endpoint(ready()), door="k1")
