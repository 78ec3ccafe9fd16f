"""What is said about a service: conditions, and events told once."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from api.contract.job.parameters import Text
from api.contract.job.token import Token
from api.contract.job.words import Network
from api.contract.status import Condition, Truth
from controller.core.attempt import SendOutcome
from controller.core.jobs import Bar, ReadingFailure
from controller.core.limits import Limits
from controller.core.observed import Observed
from controller.core.published import Status
from controller.core.status import ON_LOOPBACK

from .builders import (
    ENDED,
    HEALTH,
    JOB,
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
    exited,
    fails,
    gone,
    intended,
    job,
    plan,
    queued,
    ready,
    record,
    refused,
    see,
    see_running,
    sent,
    snapshot,
    spec,
    started,
)

STRAY = Token("i9", "s4", 0, 9)


def said(seen: Observed, kind: str, now: float = NOW, **changes: Any) -> Condition:
    return condition(plan(desired(**changes), seen, now).status, kind)


def told(seen: Observed, now: float = NOW, **changes: Any) -> list[str]:
    return [event.reason for event in plan(desired(**changes), seen, now).events]


# Conditions


def test_every_service_has_these_conditions_of_this_generation() -> None:
    status = plan(desired(generation=4), see()).status
    assert status is not None
    assert [c.type for c in status.conditions] == [
        "Accepted",
        "Startable",
        "Observed",
        "Ready",
        "Available",
        "Progressing",
        "Continuous",
    ]
    assert {c.generation for c in status.conditions} == {status.observed_generation} == {4}


SOCKET: Text = ("--uds=", {"runtime": "socket"})
PORT: Text = ({"runtime": "port"},)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        pytest.param({"access": "door", "command": ("engine", PORT)}, "ValidOnLoopback", id="port"),
        pytest.param({"access": "door", "command": ("engine", SOCKET)}, "Valid", id="socket"),
        pytest.param({"access": "door", "environment": {"AT": SOCKET, "PORT": PORT}}, "Valid", id="in its environment"),
        pytest.param({"access": "door", "health": replace(HEALTH, command=(SOCKET,))}, "Valid", id="in its check"),
        pytest.param({"access": "direct", "command": ("engine", PORT)}, "Valid", id="direct: everybody is to reach it"),
        pytest.param({"access": "door", "health": None}, "Valid", id="nothing listens"),
    ],
)
def test_an_engine_behind_a_loopback_port_is_told(changes: dict[str, Any], reason: str) -> None:
    found = said(see(), "Accepted", spec=spec(**changes))
    assert (found.status, found.reason, found.message != "") == (Truth.TRUE, reason, reason == "ValidOnLoopback")


def test_what_is_probably_not_meant_is_told() -> None:
    told = spec(access="door", command=("engine", PORT), warnings=("a: b.", "c: d."))
    found = said(see(), "Accepted", spec=told)
    assert (found.status, found.reason) == (Truth.TRUE, "ValidWithWarnings")
    assert found.message == f"a: b. c: d. {ON_LOOPBACK}"


PRIVATE = spec(access="door", command=("engine", PORT), network=Network.PRIVATE)


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        pytest.param({"network_refusal": "Operation not permitted"}, "ValidOnHostNetwork", id="refused"),
        pytest.param({}, "Valid", id="given"),
    ],
)
def test_an_engine_that_gets_no_network_of_its_own_is_told(files: dict[str, Any], reason: str) -> None:
    attempt = ready()
    found = said(see_running(attempt, files=claim(attempt, **files)), "Accepted", spec=PRIVATE)
    assert (found.status, found.reason) == (Truth.TRUE, reason)
    assert ("n1" in found.message, "Operation not permitted" in found.message) == (bool(files), bool(files))


MISSED = ready(absent_since=NOW - 60)


@pytest.mark.parametrize(
    ("seen", "truth", "reason"),
    [
        pytest.param(see(snapshot=None), Truth.UNKNOWN, "NotYet", id="no reading yet"),
        pytest.param(see(), Truth.TRUE, "Reading", id="read"),
        pytest.param(see(reading_failure=SILENT), Truth.TRUE, "Reading", id="silent for a moment"),
        pytest.param(
            see(reading_failure=replace(SILENT, since=NOW - LIMITS.silence)),
            Truth.UNKNOWN,
            "SlurmSilent",
            id="silent for long",
        ),
        pytest.param(see(snapshot=None, reading_failure=SILENT), Truth.UNKNOWN, "SlurmSilent", id="never read"),
        pytest.param(
            see(queued(), snapshot=snapshot(in_doubt=frozenset({queued().token}))),
            Truth.UNKNOWN,
            "MassVanishing",
            id="not believed",
        ),
        pytest.param(
            see(MISSED, snapshot=snapshot(job(MISSED, ENDED)), files=claim(MISSED), probes=answers(MISSED)),
            Truth.UNKNOWN,
            "EngineOutlivesJob",
            id="its engine lives on",
        ),
        pytest.param(
            see(closed(MISSED), snapshot=snapshot(job(MISSED, ENDED)), files=claim(MISSED), probes=answers(MISSED)),
            Truth.UNKNOWN,
            "EngineOutlivesJob",
            id="and it was stopped",
        ),
    ],
)
def test_observed(seen: Observed, truth: Truth, reason: str) -> None:
    found = said(seen, "Observed")
    assert (found.status, found.reason) == (truth, reason)


@pytest.mark.parametrize("silence", [20.0, 20.1, 0.3])
@pytest.mark.parametrize("since", [NOW - 3, 1_763_881_234.5, 1_763_881_234.764, 1_763_881_234.123457])
def test_silence_is_told_at_the_very_time_for_which_a_look_was_asked(since: float, silence: float) -> None:
    limits = Limits(silence=silence)
    seen = see(ready(), reading_failure=ReadingFailure(since=since, reason="SlurmSilent", message="No answer."))
    first = plan(desired(), seen, since, limits)
    assert first.look_again_at is not None
    later = plan(desired(), record(seen, first), first.look_again_at, limits)
    assert [e.reason for e in later.events] == ["SlurmSilent"]
    assert later.look_again_at is None


@pytest.mark.parametrize(
    ("seen", "changes", "truth", "reason", "count"),
    [
        (see_running(ready(0), started(1)), {"replicas": 2}, Truth.FALSE, "NotAllReady", 1),
        (see_running(ready(0), ready(1)), {"replicas": 2}, Truth.TRUE, "AllReady", 2),
        (see(), {"replicas": 0}, Truth.FALSE, "ScaledToZero", 0),
        (see(), {"running": False}, Truth.FALSE, "Stopped", 0),
        (see_running(ready(0), ready(1)), {"running": False}, Truth.FALSE, "Stopped", 0),
        (see_running(ready(0), ready(1)), {"replicas": 1}, Truth.TRUE, "AllReady", 1),
    ],
)
def test_ready(seen: Observed, changes: dict[str, Any], truth: Truth, reason: str, count: int) -> None:
    status = plan(desired(**changes), seen).status
    assert status is not None
    found = condition(status, "Ready")
    assert (found.status, found.reason, status.ready_replicas) == (truth, reason, count)
    assert status.replicas == changes.get("replicas", 1)


def test_available_is_one_that_answers() -> None:
    assert said(see_running(ready(0), started(1)), "Available", replicas=2).status is Truth.TRUE
    assert said(see_running(ready(), probes=fails(ready(), 2)), "Available").status is Truth.FALSE


def test_a_job_that_never_starts_as_things_are() -> None:
    barred = job(queued(1), PENDING, reason="PartitionTimeLimit", advice="Lower it.", bar=Bar.OVER_LIMIT)
    seen = see(queued(0), queued(1), snapshot=snapshot(job(queued(0), PENDING, reason="Resources"), barred))
    against = said(seen, "Startable", replicas=2)
    assert (against.status, against.reason) == (Truth.FALSE, "OverLimit")
    assert "can't start as things are (PartitionTimeLimit). Lower it." in against.message
    assert said(seen, "Progressing", replicas=2).message == f"Replica 1: {against.message}"
    (event,) = [e for e in plan(desired(replicas=2), seen).events if e.reason == "OverLimit"]
    assert (event.warning, event.message) == (True, against.message)
    assert said(see(queued(0), snapshot=snapshot(job(queued(0), PENDING))), "Startable").status is Truth.TRUE
    assert said(seen, "Startable", replicas=1).status is Truth.TRUE, "what is too many is not waited for"


TWINS = (job(queued(), PENDING, reason="Dependency"), job(queued(), PENDING, reason="Resources", job_id=JOB + 1))


@pytest.mark.parametrize(
    ("seen", "reason", "words"),
    [
        (see(), "Submitting", "It is being submitted."),
        (see(snapshot=None), "Submitting", "about to be submitted"),
        (see(strays=(STRAY,)), "Submitting", f"The cluster runs {STRAY} for it"),
        (see(gone(started(), "NodeFailed"), strays=(STRAY,)), "Submitting", "it waits for its end"),
        (see(queued(), snapshot=None, strays=(STRAY,)), "Queued", f"The job {JOB} is queued."),
        (see(queued(), snapshot=snapshot(job(queued(), PENDING))), "Queued", f"job {JOB} is queued."),
        (see(queued(), snapshot=snapshot(job(queued(), PENDING, reason="Resources"))), "Queued", "(Resources)"),
        (
            see(queued(), snapshot=snapshot(job(queued(), PENDING, reason="JobHeldUser", advice="Let it go."))),
            "Queued",
            "(JobHeldUser). Let it go.",
        ),
        (
            see(queued(), snapshot=snapshot(job(queued(), PENDING, reason="Dependency"))),
            "BuildingImage",
            "which makes its image",
        ),
        (see(queued(), snapshot=snapshot(*TWINS)), "Queued", "(Dependency)"),
        (see_running(started(), files=claim(started(), step="image")), "BuildingImage", "its image is being made"),
        (
            see_running(started(), files=claim(started(), step="image", detail="apptainer build")),
            "BuildingImage",
            "made: apptainer build.",
        ),
        (see_running(started()), "Starting", "its engine is starting"),
        (
            see_running(started(claimed_at=None), files={}),
            "Starting",
            "slurm.prologue, or the site's own Prolog, has not come",
        ),
        (
            see_running(started(claimed_at=None, started_at=NOW - 14), files={}),
            "Starting",
            "its engine is starting",
        ),
        (
            see_running(started(), files=claim(started(), step="loading", detail="Loading weights took 3 seconds")),
            "Starting",
            f"Loading weights took 3 seconds (job {JOB} on ",
        ),
        (see_running(ready(), probes=fails(ready(), 2)), "Starting", "its engine does not answer"),
        (see(ready(), snapshot=snapshot(job(ready(), SUSPENDED))), "Starting", f"The job {JOB} is suspended on n1"),
        (see_running(ready()), "AsWanted", ""),
        (see(closed(started(), "NodeFailed"), snapshot=None), "Submitting", "is being ended: NodeFailed"),
        (see(gone(started(), "EngineExited", closed_at=NOW)), "BackOff", "tried again after EngineExited"),
        (see(gone(started(faults=99), "EngineExited")), "Failed", "ai-factory services restart"),
    ],
)
def test_progressing(seen: Observed, reason: str, words: str) -> None:
    found = said(seen, "Progressing")
    assert found.reason == reason
    assert words in found.message


def test_how_far_an_engine_is_is_written_when_the_words_change_and_is_no_event() -> None:
    def starting(detail: str, before: Status | None = None) -> Observed:
        files = claim(started(), step="loading", detail=detail)
        return see_running(started(), files=files, **({} if before is None else {"status": before}))

    first = plan(desired(), starting("Starting to load model")).status
    assert first is not None
    assert plan(desired(), starting("Starting to load model", first)).status is None
    later = plan(desired(), starting("Loading weights took 3 seconds", first))
    assert "Loading weights" in condition(later.status, "Progressing").message
    assert later.events == ()


def test_progressing_speaks_of_the_replica_that_is_least_far() -> None:
    """Of three replicas one is ready, one starts, and one is stuck in the queue."""
    jobs = (job(ready(0), RUNNING), job(started(1), RUNNING), job(queued(2), PENDING, reason="Resources"))
    found = said(see_running(ready(0), started(1), queued(2), snapshot=snapshot(*jobs)), "Progressing", replicas=3)
    assert (found.reason, found.message) == ("Queued", f"Replica 2: The job {JOB + 2} is queued (Resources).")


def test_of_two_that_are_equally_far_the_first_speaks() -> None:
    seen = see_running(gone(started(0), "NodeFailed"), gone(started(1), "Preempted"))
    held = replace(seen, reading_failure=ReadingFailure(since=NOW - 1, reason="SlurmSilent", message="No answer."))
    assert (
        said(held, "Progressing", replicas=2).message == "Replica 0: It will be tried again after NodeFailed. It ended."
    )


def test_replicas_that_completed_are_not_waited_for() -> None:
    running = started(1, ready_at=NOW - 50)
    seen = see_running(gone(started(0), "Completed"), running)
    assert said(seen, "Progressing", replicas=2, spec=JOB_SPEC).reason == "AsWanted"
    again = gone(started(1, started_at=NOW - 1), "Cancelled", closed_at=NOW)
    seen = see(gone(started(0), "Completed"), again)
    assert "after Cancelled" in said(seen, "Progressing", replicas=2, spec=JOB_SPEC).message


def test_a_stopped_service_is_stopping_until_nothing_of_it_is_left() -> None:
    assert said(see_running(ready()), "Progressing", running=False).reason == "Stopping"
    assert said(see(gone(ready(), "Stopped")), "Progressing", running=False).reason == "Stopped"


def test_a_refusal_is_said_and_why() -> None:
    status = plan(refused(), see()).status
    for kind, reason in (("Accepted", "BadConfig"), ("Progressing", "Failed")):
        found = condition(status, kind)
        assert (found.status, found.reason) == (Truth.FALSE, reason)
        assert "resources.memory" in found.message


def test_since_stays_while_the_truth_stays() -> None:
    seen = see()
    first = plan(desired(), seen)
    queue = replace(record(seen, first), snapshot=snapshot(job(intended(), PENDING, job_id=JOB)))
    later = plan(desired(), queue, NOW + 60)
    before, now = condition(first.status, "Progressing"), condition(later.status, "Progressing")
    assert (before.reason, now.reason) == ("Submitting", "Queued")
    assert (before.since, now.since) == (NOW, NOW)


def test_since_moves_with_the_truth() -> None:
    seen = see_running(ready())
    first = plan(desired(), seen)
    later = plan(desired(), replace(record(seen, first), probes=fails(ready(), 2)), NOW + 60)
    assert condition(later.status, "Available").since == NOW + 60
    assert condition(later.status, "Accepted").since == NOW


def test_an_unchanged_status_is_not_written() -> None:
    seen = see_running(ready())
    again = plan(desired(), record(seen, plan(desired(), seen)), NOW + 60)
    assert (again.status, again.events, again.attempts, again.endpoints) == (None, (), (), None)


# Events

STEPS = [
    pytest.param(see(), ["Submitting"], id="opened"),
    pytest.param(see(intended(), sent=sent(intended(), SendOutcome.ACCEPTED, job_id=7)), ["Submitted"], id="accepted"),
    pytest.param(see(intended(), snapshot=snapshot(job(intended(), PENDING))), ["Submitted"], id="adopted"),
    pytest.param(see_running(queued(), snapshot=snapshot(job(queued(), RUNNING))), ["Started"], id="started"),
    pytest.param(
        see_running(started(port=8000, serving_at=NOW - 1), probes=answers(started())),
        ["Ready"],
        id="ready",
    ),
    pytest.param(see_running(ready(), probes=fails(ready(), 2)), ["Unready"], id="unready"),
    pytest.param(see_running(ready(), probes=fails(ready(), 3)), ["Unhealthy"], id="unhealthy"),
    pytest.param(see(ready(), files=exited(ready())), ["EngineExited"], id="ended"),
    pytest.param(
        see(started(), snapshot=snapshot(job(started(), ENDED, state="NODE_FAIL"))), ["NodeFailed"], id="lost"
    ),
    pytest.param(
        see(intended(), sent=sent(intended(), SendOutcome.REJECTED, message="No.")),
        ["SubmitRejected", "Failed"],
        id="rejected",
    ),
]


@pytest.mark.parametrize(("seen", "reasons"), STEPS)
def test_a_step_is_told_once(seen: Observed, reasons: list[str]) -> None:
    first = plan(desired(), seen)
    assert [e.reason for e in first.events] == reasons
    assert all(e.message for e in first.events)
    again = plan(desired(), record(seen, first))
    assert not set(reasons) & {e.reason for e in again.events}


@pytest.mark.parametrize(
    ("seen", "changes", "reason"),
    [
        (see(gone(started(faults=99), "EngineExited")), {}, "Failed"),
        (see(gone(started(), "Completed")), {"spec": JOB_SPEC}, "Completed"),
        (see(gone(ready(), "Stopped")), {"running": False}, "Stopped"),
        (see(ready(), snapshot=snapshot(in_doubt=frozenset({ready().token}))), {}, "MassVanishing"),
        (see(snapshot=None, reading_failure=SILENT), {}, "SlurmSilent"),
    ],
)
def test_a_turn_is_told_once(seen: Observed, changes: dict[str, Any], reason: str) -> None:
    assert told(seen, **changes) == [reason]
    assert told(record(seen, plan(desired(**changes), seen)), now=NOW + 60, **changes) == []


def test_a_refusal_is_told_once_as_a_warning() -> None:
    seen = see()
    first = plan(refused(), seen)
    assert ("BadConfig", True) in [(e.reason, e.warning) for e in first.events]
    assert plan(refused(), record(seen, first), NOW + 60).events == ()


def test_that_the_cluster_answers_again_is_told() -> None:
    silent = see(reading_failure=replace(SILENT, since=NOW - 60), snapshot=None)
    first = plan(desired(), silent)
    back = replace(record(silent, first), reading_failure=None, snapshot=snapshot())
    assert "Reading" in told(back)


def test_the_first_reading_of_a_term_is_no_news() -> None:
    seen = see(queued(), snapshot=None)
    first = plan(desired(), seen)
    assert [e.reason for e in first.events] == []
    assert told(replace(record(seen, first), snapshot=snapshot(job(queued(), PENDING)))) == []


def test_faults_are_warnings_and_what_people_wished_is_none() -> None:
    (fault,) = plan(desired(), see(ready(), files=exited(ready()))).events
    assert fault.warning
    wished = plan(desired(running=False), see_running(ready())).events
    assert [(e.reason, e.warning) for e in wished] == [("Stopped", False)]


def test_how_long_a_start_took_is_never_negative() -> None:
    ahead = started(started_at=NOW + 3, port=8000, serving_at=NOW)
    (event,) = plan(desired(), see_running(ahead, probes=answers(ahead))).events
    assert event.message == "Replica 0: ready 0 s after its job started."


def test_a_status_from_before_does_not_confuse() -> None:
    strange = Condition(
        type="Progressing", status=Truth.TRUE, reason="FromTheFuture", message="", since=5.0, generation=1
    )
    seen = see_running(ready(), status=Status(observed_generation=9, conditions=(strange,)))
    assert said(seen, "Progressing").since == NOW
