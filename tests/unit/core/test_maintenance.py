"""Before a maintenance a queued job is shortened to what fits, but to no less than its service allows; that is told."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.contract.job.words import Lane
from controller.core.attempt import Attempt, Shortening
from controller.core.jobs import Job, Maintenance
from controller.core.lead import ENOUGH, History, Measured
from controller.core.observed import Observed
from controller.core.plan import Shorten

from .builders import (
    LIMITS,
    NOW,
    PENDING,
    RUNNING,
    SILENT,
    condition,
    desired,
    job,
    plan,
    queued,
    ready,
    see,
    see_running,
    snapshot,
    spec,
)

REASON = "ReqNodeNotAvail, Reserved for maintenance"
DAY = 86_400.0
MINUTE = 60.0
LEAST = 60
WANTED = desired(spec=spec(resources=replace(spec().resources, time_min=LEAST, time_limit=3 * 1440)))
UNBOUND = desired()
"""It says nothing of how short its jobs may be."""
WAITS = queued()
TONIGHT = Maintenance(begins_at=NOW + 5 * 3600, ends_at=NOW + 9 * 3600)


def kept_back(attempt: Attempt = WAITS, **changes: Any) -> Job:
    values = {"reason": REASON, "awaits_maintenance": True, "time_limit": 3 * DAY, "advice": "Slurm's own word."}
    return job(attempt, PENDING, **{**values, **changes})


def seen(*maintenances: Maintenance, last: Shortening | None = None, **changes: Any) -> Observed:
    """Return what is seen of a queued job that is kept back."""
    shortened = {WAITS.token: last} if last is not None else {}
    shown = snapshot(kept_back(**changes), maintenances=maintenances)
    return see(WAITS, snapshot=shown, shortened=shortened)


def shortened(found: Observed, **changes: Any) -> list[tuple[str, int]]:
    """Return which jobs are shortened, and to how many minutes."""
    wanted = changes.pop("wanted", WANTED)
    actions = plan(wanted, found, **changes).actions
    return [(a.token, a.minutes) for a in actions if isinstance(a, Shorten)]


def said(found: Observed, wanted: Any = WANTED) -> str:
    return condition(plan(wanted, found).status, "Progressing").message


def test_it_gets_what_is_left_but_a_minute() -> None:
    assert shortened(seen(TONIGHT)) == [(WAITS.token, 299)]
    found = plan(WANTED, seen(TONIGHT))
    (event,) = [e for e in found.events if e.reason == "Shortened"]
    assert event.message.startswith(
        "Replica 0: job 501 is to be shortened to 299 min, so that it ends before the maintenance"
    )
    assert "It is shortened to 299 min" in said(seen(TONIGHT))


@pytest.mark.parametrize("limit", [None, 5 * 3600 + 1.0], ids=["without end", "just too long"])
def test_of_whatever_length_it_is(limit: float | None) -> None:
    assert shortened(seen(TONIGHT, time_limit=limit)) == [(WAITS.token, 299)]


@pytest.mark.parametrize(
    ("left", "minutes"),
    [(LEAST * MINUTE + 59, None), ((LEAST + 1) * MINUTE - 1, None), ((LEAST + 1) * MINUTE, LEAST)],
)
def test_never_less_than_its_least(left: float, minutes: int | None) -> None:
    ahead = Maintenance(begins_at=NOW + left, ends_at=NOW + DAY)
    assert [m for _, m in shortened(seen(ahead))] == ([] if minutes is None else [minutes])


def test_where_its_least_does_not_fit_it_is_told_until_when_it_waits() -> None:
    ahead = Maintenance(begins_at=NOW + 600, ends_at=NOW + 3600)
    assert said(seen(ahead)) == (
        f"The job 501 is queued ({REASON}). It would serve for less than resources.time_min (60 min) before the "
        "maintenance that begins at 1970-01-02 03:56 UTC, so it waits until that ends, at 1970-01-02 04:46 UTC."
    )


def test_one_that_goes_on_is_waited_for() -> None:
    goes_on = Maintenance(begins_at=NOW - 600, ends_at=NOW + 3600)
    assert shortened(seen(goes_on)) == []
    assert "A maintenance goes on: it waits until that ends, at 1970-01-02 04:46 UTC." in said(seen(goes_on))


def test_nothing_is_shortened_that_its_service_does_not_let() -> None:
    assert shortened(seen(TONIGHT), wanted=UNBOUND) == []
    assert "resources.time_min to which that may be lowered" in said(seen(TONIGHT), UNBOUND)
    other = desired(spec=WANTED.spec, digest="another")
    assert shortened(seen(TONIGHT), wanted=other) == []


def test_a_job_that_waits_for_something_else_is_left_alone() -> None:
    assert shortened(seen(TONIGHT, awaits_maintenance=False, reason="Resources")) == []
    running = ready()
    found = see_running(running)
    assert shortened(replace(found, snapshot=snapshot(job(running, RUNNING), maintenances=(TONIGHT,)))) == []


def test_what_is_not_to_be_seen_shortens_nothing_and_is_told() -> None:
    assert shortened(seen()) == []
    assert "the site may hide its reservations (PrivateData). So it is not shortened" in said(seen())
    assert said(seen(), UNBOUND).endswith("Slurm's own word.")


def test_the_last_maintenance_that_it_would_meet_counts_first() -> None:
    soon = Maintenance(begins_at=NOW + 1200, ends_at=NOW + 2400)
    later = Maintenance(begins_at=NOW + 4 * DAY, ends_at=NOW + 5 * DAY)
    over = Maintenance(begins_at=NOW - 2 * DAY, ends_at=NOW - DAY)
    assert shortened(seen(over, soon, TONIGHT, later)) == [(WAITS.token, 299)]
    last = Shortening(at=NOW - 40, minutes=299, before=TONIGHT.begins_at)
    before = Maintenance(begins_at=NOW + 2 * 3600, ends_at=NOW + 3 * 3600)
    again = seen(before, TONIGHT, last=last, time_limit=299 * MINUTE)
    assert shortened(again) == [(WAITS.token, 119)]


@given(
    begins=st.lists(st.floats(NOW - 100, NOW + 30_000), max_size=3),
    limit=st.none() | st.floats(60, 50_000),
    least=st.integers(1, 300),
)
def test_whatever_comes_it_ends_before_and_has_its_least(begins: list[float], limit: float | None, least: int) -> None:
    wanted = desired(spec=spec(resources=replace(spec().resources, time_min=least)))
    ahead = tuple(Maintenance(begins_at=at, ends_at=NOW + 40_000) for at in begins)
    met = [at for at in begins if limit is None or at < NOW + limit]
    found = shortened(seen(*ahead, time_limit=limit), wanted=wanted)
    assert len(found) == bool(met and max(met) - NOW >= (least + 1) * MINUTE)
    for _, minutes in found:
        assert least <= minutes
        assert MINUTE <= max(met) - (NOW + minutes * MINUTE) < 2 * MINUTE
        assert limit is None or minutes * MINUTE < limit


class TestPace:
    LAST = Shortening(at=NOW - 40, minutes=298, before=TONIGHT.begins_at)

    def test_it_is_shortened_further_only_once_a_reading_has_shown_what_came_of_it(self) -> None:
        assert shortened(seen(TONIGHT, last=self.LAST)) == [(WAITS.token, 299)]
        unread = replace(self.LAST, at=NOW - 0.5)
        assert shortened(seen(TONIGHT, last=unread)) == []

    def test_nor_at_once(self) -> None:
        fresh = replace(self.LAST, at=NOW - 5)
        found = plan(WANTED, seen(TONIGHT, last=fresh))
        assert found.actions == ()
        assert found.look_again_at == fresh.at + LIMITS.shorten_again

    def test_what_failed_is_told_and_tried_again_much_later(self) -> None:
        failed = replace(self.LAST, trouble="scontrol: Access/permission denied.")
        found = plan(WANTED, seen(TONIGHT, last=failed))
        assert (found.actions, found.look_again_at) == ((), failed.at + LIMITS.backoff_most)
        assert "could not be shortened to 298 min" in said(seen(TONIGHT, last=failed))
        assert "Access/permission denied." in said(seen(TONIGHT, last=failed))
        late = replace(failed, at=NOW - LIMITS.backoff_most)
        assert shortened(seen(TONIGHT, last=late)) == [(WAITS.token, 299)]

    def test_while_the_cluster_is_silent_nothing_is_shortened(self) -> None:
        assert shortened(replace(seen(TONIGHT), reading_failure=SILENT)) == []

    def test_again_it_is_no_event(self) -> None:
        assert "Shortened" not in {e.reason for e in plan(WANTED, seen(TONIGHT, last=self.LAST)).events}


class TestOnceShortened:
    LAST = Shortening(at=NOW - 5, minutes=299, before=TONIGHT.begins_at)

    @pytest.mark.parametrize("awaits", [True, False], ids=["Slurm has not looked yet", "it may begin"])
    def test_it_is_told(self, awaits: bool) -> None:
        reason = REASON if awaits else ""
        found = seen(TONIGHT, last=self.LAST, time_limit=299 * MINUTE, awaits_maintenance=awaits, reason=reason)
        assert shortened(found) == []
        told = (
            "It was shortened to 299 min, so that it ends before the maintenance that begins at 1970-01-02 08:46 UTC."
        )
        assert told in said(found)

    def test_it_is_looked_at_again_once_what_fits_is_less(self) -> None:
        found = plan(WANTED, seen(TONIGHT, last=self.LAST, time_limit=299 * MINUTE))
        assert found.look_again_at == NOW + 61
        assert shortened(seen(TONIGHT, last=self.LAST, time_limit=299 * MINUTE), now=NOW + 61) == [(WAITS.token, 297)]

    def test_after_that_maintenance_nothing_more_is_said_of_it(self) -> None:
        over = replace(self.LAST, before=NOW - 10)
        found = seen(last=over, time_limit=299 * MINUTE, awaits_maintenance=False, reason="Resources")
        assert "shortened" not in said(found)

    def test_what_was_told_of_it_before_is_no_wait(self) -> None:
        """Slurm's forecast of a moment ago, the end of the maintenance, hastens no successor of the others."""
        other = ready(1, 1, job_id=900, started_at=NOW - 100, ends_at=NOW + DAY)
        forecast = kept_back(begins_at=NOW + 20 * 3600, awaits_maintenance=False, reason="")
        shown = snapshot(forecast, job(other, RUNNING), maintenances=())
        found = replace(see_running(WAITS, other), snapshot=shown, files={})
        known = History(waits=Measured(count=ENOUGH, high=1.0), startups=Measured(count=ENOUGH, high=90.0))
        wanted = replace(WANTED, replicas=2)
        hurried = replace(found, history=known)
        assert opened(plan(wanted, hurried, now=NOW + 13 * 3600)) == 1
        calm = replace(hurried, shortened={WAITS.token: self.LAST})
        assert opened(plan(wanted, calm, now=NOW + 13 * 3600)) == 0


def opened(found: Any) -> int:
    return sum(a.incarnation == 2 for a in found.attempts)


class TestSuccessors:
    OLD = ready(0, 1, ends_at=NOW + 4 * 3600)
    NEXT = queued(0, 2, job_id=777, lane=Lane.B, beside="TimeLimit")

    def beside(self, maintenance: Maintenance, beside: str = "TimeLimit") -> Observed:
        successor = replace(self.NEXT, beside=beside)
        found = see_running(self.OLD, successor)
        shown = snapshot(job(self.OLD, RUNNING), kept_back(successor), maintenances=(maintenance,))
        return replace(found, snapshot=shown, files={k: v for k, v in found.files.items() if k == self.OLD.token})

    def test_one_that_would_add_too_little_to_what_serves_waits(self) -> None:
        assert shortened(self.beside(TONIGHT)) == []
        later = Maintenance(begins_at=NOW + 5 * 3600 + MINUTE, ends_at=NOW + DAY)
        assert shortened(self.beside(later)) == [(self.NEXT.token, 300)]

    def test_one_whose_forerunner_goes_at_once_does_not(self) -> None:
        assert shortened(self.beside(TONIGHT, "Interrupted")) == [(self.NEXT.token, 299)]

    def test_one_that_waits_says_so_where_the_gap_is_told(self) -> None:
        begins = TONIGHT.begins_at
        found = self.beside(TONIGHT)
        assert found.snapshot is not None
        shown = snapshot(
            job(self.OLD, RUNNING), kept_back(self.NEXT, begins_at=TONIGHT.ends_at), maintenances=(TONIGHT,)
        )
        told = condition(plan(WANTED, replace(found, snapshot=shown)).status, "Continuous")
        assert told.reason == "SuccessorLate"
        assert begins > self.OLD.ends_at  # type: ignore[operator]
        assert "so it waits until that ends, at 1970-01-02 12:46 UTC." in told.message
