"""Which attempts a new snapshot gives reason to look at."""

from __future__ import annotations

from dataclasses import replace

import pytest

from controller.core.jobs import Job, JobPhase, Maintenance, Snapshot
from controller.ports import Tracked
from controller.runtime.reader import changed_tokens

PENDING = Job(job_id=1, token="t", phase=JobPhase.PENDING, state="PENDING")
RUNNING = replace(PENDING, phase=JobPhase.RUNNING, state="RUNNING")
TRACKED = Tracked(service_id="s", token="t", job_id=1, open=True, started=False)


def reading(*jobs: Job) -> Snapshot:
    return Snapshot(sequence=1, began_at=0.0, jobs={"t": jobs} if jobs else {})


def test_what_waits_for_a_maintenance_changes_with_it() -> None:
    waits, other = replace(PENDING, awaits_maintenance=True), replace(PENDING, job_id=2, token="u")
    before = Snapshot(sequence=1, began_at=0.0, jobs={"t": (waits,), "u": (other,)})
    after = replace(before, maintenances=(Maintenance(begins_at=5.0, ends_at=6.0),))
    assert changed_tokens(before, after, ()) == {"t"}
    assert changed_tokens(after, after, ()) == set()


@pytest.mark.parametrize(
    ("before", "after", "tracked", "wakes"),
    [
        pytest.param(reading(PENDING), reading(PENDING), [TRACKED], False, id="nothing changed"),
        pytest.param(reading(PENDING), reading(RUNNING), [TRACKED], True, id="it runs"),
        pytest.param(
            reading(PENDING), reading(replace(PENDING, reason="Priority")), [TRACKED], True, id="why it waits"
        ),
        pytest.param(
            reading(PENDING), reading(PENDING, replace(PENDING, job_id=2)), [TRACKED], True, id="a second job"
        ),
        pytest.param(reading(PENDING), reading(), [TRACKED], True, id="it vanished"),
        pytest.param(reading(), reading(), [TRACKED], True, id="it is still missed: graces run in readings"),
        pytest.param(None, reading(PENDING), [TRACKED], True, id="the first reading"),
        pytest.param(reading(PENDING), reading(PENDING), [replace(TRACKED, open=False)], True, id="it is being ended"),
        pytest.param(reading(), reading(PENDING), [], True, id="nobody knows it"),
        pytest.param(reading(RUNNING), reading(), [], True, id="an orphan has left"),
        pytest.param(reading(RUNNING), reading(RUNNING), [], False, id="an orphan stays"),
        pytest.param(reading(), reading(), [], False, id="nothing at all"),
    ],
)
def test_wakes(before: Snapshot | None, after: Snapshot, tracked: list[Tracked], wakes: bool) -> None:
    assert changed_tokens(before, after, tracked) == ({"t"} if wakes else set())
