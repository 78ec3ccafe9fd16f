"""Tracked attempts: which they are, and whether anything is changing."""

from __future__ import annotations

from dataclasses import replace

import pytest

from controller.cluster.tracked_attempts import TrackedAttempts
from controller.core.attempt import Attempt
from controller.ports import Tracked

QUEUED = Attempt(
    token="af-i-s-0-1", service_id="s", replica=0, incarnation=1, generation=1, digest="d", intent_at=1.0, job_id=7
)
STARTED = replace(QUEUED, started_at=2.0)
READY = replace(STARTED, ready_at=3.0)
UNREADY = replace(READY, unready_since=4.0)
CLOSED = replace(READY, closed_at=5.0, outcome="Stopped")
GONE = replace(CLOSED, gone_at=6.0)


@pytest.mark.parametrize(
    ("attempt", "changing"),
    [
        pytest.param(QUEUED, False, id="a queue may last for days"),
        pytest.param(STARTED, True, id="starting"),
        pytest.param(READY, False, id="ready"),
        pytest.param(UNREADY, True, id="unready"),
        pytest.param(CLOSED, True, id="being ended"),
        pytest.param(replace(QUEUED, closed_at=5.0, outcome="Stopped"), True, id="being taken out of the queue"),
        pytest.param(GONE, False, id="gone"),
    ],
)
def test_what_counts_as_changing(attempt: Attempt, changing: bool) -> None:
    tracked = TrackedAttempts()
    tracked.update([attempt])
    assert tracked.is_changing is changing
    if attempt.gone_at is None:
        assert TrackedAttempts([Tracked.of(attempt)]).is_changing is changing


def test_what_is_not_gone_is_tracked() -> None:
    tracked = TrackedAttempts()
    tracked.update([READY])
    assert READY.token in tracked
    assert tracked.all() == [
        Tracked(service_id="s", token=READY.token, job_id=7, open=True, started=True, settled=True)
    ]
    tracked.update([CLOSED])
    assert [t.open for t in tracked.all()] == [False]
    tracked.update([GONE])
    assert READY.token not in tracked
    assert tracked.all() == []


def test_what_is_handed_out_does_not_change_under_the_reader() -> None:
    tracked = TrackedAttempts([Tracked.of(READY)])
    before = tracked.all()
    tracked.update([GONE])
    assert len(before) == 1


def test_others_keep_it_changing() -> None:
    tracked = TrackedAttempts([Tracked.of(CLOSED), Tracked.of(replace(STARTED, token="af-i-t-0-1", service_id="t"))])
    tracked.update([GONE])
    assert tracked.is_changing
    tracked.update([replace(READY, token="af-i-t-0-1")])
    assert not tracked.is_changing


def test_what_has_gone_unnoticed_is_not_tracked_for_ever() -> None:
    """A commit's answer was lost, and the next reading of the database knows that attempt no more."""
    closing = replace(CLOSED, token="af-i-s-0-1", gpus=1)
    others = replace(READY, token="af-i-t-0-1", service_id="t", gpus=1)
    tracked = TrackedAttempts([Tracked.of(closing), Tracked.of(others)])
    tracked.update([replace(READY, token="af-i-s-0-2", gpus=1)])
    assert {each.token for each in tracked.all()} == {"af-i-s-0-2", "af-i-t-0-1"}
    assert (tracked.gpus("s"), tracked.gpus(), tracked.is_changing) == (1, 2, False)
