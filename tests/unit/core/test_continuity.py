"""Continuous: what stands in the way of a hand-over is said as soon as it is seen, with the time when it counts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from api.contract.job.words import Lane
from api.contract.launch import LaunchSpec, Volume
from api.contract.status import Condition, explanation
from controller.core.attempt import Attempt
from controller.core.jobs import Bar
from controller.core.lead import ENOUGH, History, Measured
from controller.core.observed import Grant, Observed, Quota
from controller.core.stages import time_of_day

from .builders import (
    LIMITS,
    NOW,
    PENDING,
    RUNNING,
    closed,
    condition,
    desired,
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
)

STARTUP = 90.0
KNOWN = History(waits=Measured(count=ENOUGH, high=1.0), startups=Measured(count=ENOUGH, high=STARTUP))
SERIOUS = STARTUP + LIMITS.drain_most
LONG = NOW - 50_000
FULL = Grant(quota=Quota(gpus_per_service=1))
ONE_GPU = {"spec": spec(resources=replace(spec().resources, gpu=1))}


def old(ends_in: float, **changes: Any) -> Attempt:
    times = {"intent_at": LONG, "started_at": LONG, "ready_at": LONG + 10, "ends_at": NOW + ends_in}
    return ready(0, 1, **{**times, **changes})


def beside(ends_in: float, **changes: Any) -> Observed:
    """Return what is seen of an attempt and of its successor, whose job is queued."""
    first, second = old(ends_in), queued(0, 2, job_id=777, lane=Lane.B, beside="TimeLimit")
    seen = see_running(first, second, history=KNOWN)
    return replace(seen, snapshot=snapshot(job(first, RUNNING), job(second, PENDING, **changes)))


def said(seen: Observed, **changes: Any) -> Condition:
    return condition(plan(desired(**changes), seen).status, "Continuous")


def test_nothing_is_against_it_while_a_successor_has_time() -> None:
    assert said(see_running(old(50_000), history=KNOWN)).reason == "NothingAgainst"
    assert said(beside(SERIOUS + 1)).reason == "NothingAgainst"


def test_it_is_said_when_the_next_successor_is_due() -> None:
    later = ready(1, 1, intent_at=LONG, started_at=LONG, ready_at=LONG + 10, ends_at=NOW + 60_000)
    found = said(see_running(later, old(50_000), history=KNOWN), replicas=2)
    due = NOW + 50_000 - 1.0 - STARTUP - LIMITS.drain_most
    assert found.message == (
        f"Replica 0: its job 501 ends at {time_of_day(NOW + 50_000)}; "
        f"its successor is due at {time_of_day(due - due % 60)}."
    )
    assert said(beside(50_000)).message == "", "it is there"
    assert said(see_running(old(SERIOUS), history=KNOWN)).message == "", "it is being opened"


@pytest.mark.parametrize(
    ("launch", "why"),
    [
        (spec(update_strategy="recreate"), "update is recreate"),
        (spec(volumes=(Volume(target="/d", name="data"),)), "both would write to its volumes"),
    ],
)
def test_that_none_may_be_beside_it_is_said_from_the_first(launch: LaunchSpec, why: str) -> None:
    later = ready(1, 1, intent_at=LONG, started_at=LONG, ready_at=LONG + 10, ends_at=NOW + 60_000)
    found = said(see_running(later, old(50_000), history=KNOWN), spec=launch, replicas=2)
    assert (found.status, found.reason) == ("False", "OneAtATime")
    assert found.message == (
        f"Replica 0: its job 501 ends at {time_of_day(NOW + 50_000)}, and its successor begins only after that, "
        f"since {why}. The replica answers nobody from then on, for about 90 s. "
        "With a longer time limit (resources.time_limit) that comes less often."
    )
    endless = see_running(old(0, ends_at=None), history=KNOWN)
    assert said(endless, spec=launch).reason == "NothingAgainst"
    assert said(see_running(old(50_000), history=KNOWN), spec=replace(launch, kind="job")).reason == "NothingAgainst"


def test_a_successor_that_is_still_queued_when_it_should_start_is_late() -> None:
    found = said(beside(SERIOUS, reason="Priority"))
    assert (found.status, found.reason) == ("False", "SuccessorLate")
    assert "its job 501 ends at 03:53:10 UTC" in found.message
    assert "777, its successor, is still queued (Priority)" in found.message


@pytest.mark.parametrize("why", [{"is_held": True}, {"bar": Bar.OVER_LIMIT}])
def test_a_successor_that_does_not_begin_by_itself_is_told_of_at_once(why: dict[str, Any]) -> None:
    found = said(beside(50_000, reason="JobHeldAdmin", advice="An administrator holds it: ask the site.", **why))
    assert (found.status, found.reason) == ("False", "SuccessorLate")
    assert "still queued (JobHeldAdmin). An administrator holds it" in found.message


def test_it_is_late_as_soon_as_the_cluster_expects_it_to_be() -> None:
    begins_at = NOW + 10_000 - STARTUP
    assert said(beside(10_000, begins_at=begins_at)).reason == "NothingAgainst"
    found = said(beside(10_000, begins_at=begins_at + 1))
    assert found.reason == "SuccessorLate"
    assert "expects it to begin at 06:31:51 UTC" in found.message


def test_a_successor_that_starts_is_not_late() -> None:
    first, second = old(SERIOUS), started(0, 2, lane=Lane.B, beside="TimeLimit")
    assert said(see_running(first, second, history=KNOWN)).reason == "NothingAgainst"


def test_a_job_that_lasts_short_is_judged_by_a_quarter_of_its_time() -> None:
    first = old(20, intent_at=NOW - 40, started_at=NOW - 40, ready_at=NOW - 39)
    second = queued(0, 2, lane=Lane.B, beside="TimeLimit")
    seen = see_running(first, second, history=KNOWN)
    seen = replace(seen, snapshot=snapshot(job(first, RUNNING), job(second, PENDING)))
    assert condition(plan(desired(), seen, NOW + 4).status, "Continuous").reason == "NothingAgainst"
    assert condition(plan(desired(), seen, NOW + 5).status, "Continuous").reason == "SuccessorLate"


def test_one_that_can_not_be_opened_is_late_too() -> None:
    late, in_time = (
        see_running(old(each), gone(queued(0, 2, lane=Lane.B, failures=8), closed_at=NOW - 1), history=KNOWN)
        for each in (SERIOUS, SERIOUS + 1)
    )
    assert said(late).reason == "SuccessorLate"
    assert "can't be opened yet (back-off)" in said(late).message
    assert said(in_time).reason == "NothingAgainst"


def test_that_slurm_has_no_room_for_it_is_said_when_it_is_first_seen() -> None:
    found = said(beside(50_000, lacks_room=True, reason="QOSMaxJobsPerUserLimit", advice="Ask the site."))
    assert (found.status, found.reason) == ("False", "NoRoom")
    assert "777, its successor, may not run beside it (QOSMaxJobsPerUserLimit)" in found.message
    assert "Ask the site. The replica answers nobody from then on, for about 90 s." in found.message


def test_that_slurm_takes_no_further_job_is_said() -> None:
    put_off = gone(queued(0, 2, lane=Lane.B, message="QOSMaxSubmitJobPerUserLimit"), "SubmitDeferred")
    put_off = replace(put_off, message="QOSMaxSubmitJobPerUserLimit", closed_at=NOW - 1)
    found = said(see_running(old(300), put_off, history=KNOWN))
    assert found.reason == "NoRoom"
    assert "Slurm takes no successor for it: QOSMaxSubmitJobPerUserLimit" in found.message


def test_a_ceiling_of_the_services_own_is_known_before_a_successor_is_due() -> None:
    found = said(see_running(old(50_000, gpus=1), history=KNOWN, grant=FULL), **ONE_GPU)
    assert found.reason == "NoRoom"
    assert "quota.gpus_per_service" in found.message


@pytest.mark.parametrize(("ends_in", "reason"), [(50_000, "NothingAgainst"), (SERIOUS, "NoRoom")])
def test_one_on_all_services_once_a_successor_is_due(ends_in: float, reason: str) -> None:
    seen = see_running(old(ends_in, gpus=1), history=KNOWN, grant=Grant(quota=Quota(gpus=1)))
    assert said(seen, **ONE_GPU).reason == reason


@pytest.mark.parametrize(
    ("attempt", "launch"),
    [
        (old(1), spec(kind="job")),
        (replace(old(1), ends_at=None), spec()),
        (old(1, unready_since=NOW - 1), spec()),
        (closed(old(1)), spec()),
    ],
    ids=["ends by itself", "no end", "not ready", "closed"],
)
def test_where_nothing_is_to_be_handed_over_nothing_is_against_it(attempt: Attempt, launch: Any) -> None:
    seen = see_running(attempt, history=KNOWN, grant=FULL)
    assert said(seen, spec=launch).reason == "NothingAgainst"


def test_no_room_is_said_before_lateness_whichever_replica() -> None:
    late, full = beside(SERIOUS), beside(50_000, lacks_room=True)
    assert late.snapshot is not None
    assert full.snapshot is not None
    second = [replace(a, replica=1, token=a.token.replace("-0-", "-1-")) for a in full.attempts]
    jobs = [replace(j, token=j.token.replace("-0-", "-1-")) for each in full.snapshot.jobs.values() for j in each]
    files = full.files | {token.replace("-0-", "-1-"): told for token, told in full.files.items()}
    probes = late.probes | {token.replace("-0-", "-1-"): told for token, told in full.probes.items()}
    everything = replace(late, attempts=(*late.attempts, *second), files=files, probes=probes)
    mine = [j for each in late.snapshot.jobs.values() for j in each]
    found = said(replace(everything, snapshot=snapshot(*mine, *jobs)), replicas=2)
    assert found.reason == "NoRoom"
    assert found.message.startswith("Replica 1")


def test_it_is_told_once_as_a_warning_and_explains_a_service_that_serves() -> None:
    seen = beside(50_000, lacks_room=True, reason="QOSMaxJobsPerUserLimit")
    first = plan(desired(), seen)
    assert [(e.reason, e.warning) for e in first.events if e.reason == "NoRoom"] == [("NoRoom", True)]
    assert not plan(desired(), record(seen, first)).events
    assert first.status is not None
    assert "may not run beside it" in explanation(first.status.conditions)
