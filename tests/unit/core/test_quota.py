"""Ceilings on GPUs: what does not fit waits and says so, what is used up is ended."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from api.contract.launch import Resources
from controller.core.observed import Grant, Observed, Quota
from controller.core.plan import Submit

from .builders import (
    NOW,
    RUNNING,
    actions,
    closed,
    condition,
    desired,
    gone,
    job,
    plan,
    ready,
    see,
    see_running,
    snapshot,
    spec,
    token,
)

TWO_EACH: dict[str, Any] = {"spec": spec(resources=Resources(gpu=2))}


def under(seen: Observed, **quota: Any) -> Observed:
    return replace(seen, grant=Grant(quota=Quota(**quota)))


def test_an_attempt_remembers_its_gpus() -> None:
    (attempt,) = plan(desired(**TWO_EACH), see(snapshot=snapshot())).attempts
    assert attempt.gpus == 2


def test_only_as_many_replicas_as_fit_are_tried() -> None:
    seen = under(see(snapshot=snapshot()), gpus=7, held_by_others=2)
    assert actions(seen, desired(**TWO_EACH, replicas=4)) == (Submit(token=token(0)), Submit(token=token(1)))
    found = plan(desired(**TWO_EACH, replicas=4), seen)
    assert found.wants_gpus == 2


def test_what_does_not_fit_says_so() -> None:
    seen = under(see(snapshot=snapshot()), gpus=4, held_by_others=3)
    found = plan(desired(**TWO_EACH), seen)
    progressing = condition(found.status, "Progressing")
    assert (progressing.reason, found.actions) == ("QuotaExceeded", ())
    assert progressing.message == "A replica needs 2 GPUs, and all services together may hold 4 (quota.gpus)."
    assert [(e.reason, e.warning) for e in found.events] == [("QuotaExceeded", True)]


def test_a_service_has_a_ceiling_of_its_own() -> None:
    seen = under(see_running(ready(0, gpus=2)), gpus_per_service=3)
    found = plan(desired(**TWO_EACH, replicas=2), seen)
    assert (found.actions, found.wants_gpus) == ((), 0)
    assert "a service may hold 3 (quota.gpus_per_service)" in condition(found.status, "Progressing").message


def test_gpus_are_held_until_nothing_is_left_of_the_job() -> None:
    over, left = gone(ready(0, gpus=2)), closed(ready(0, gpus=2))
    assert actions(under(see(over, snapshot=snapshot()), gpus=2), desired(**TWO_EACH)) != ()
    seen = under(see(left, snapshot=snapshot(job(left, RUNNING))), gpus=2)
    assert not any(isinstance(a, Submit) for a in actions(seen, desired(**TWO_EACH, replicas=2)))


def test_what_needs_no_gpu_is_never_held() -> None:
    seen = under(see(snapshot=snapshot()), gpus=1, held_by_others=5, gpu_hours=1.0, hours=9.0)
    assert actions(seen, desired()) == (Submit(token=token(0)),)


@pytest.mark.parametrize(
    ("quota", "setting"),
    [
        ({"gpu_hours": 100.0, "hours": 100.0}, "quota.gpu_hours"),
        ({"gpu_hours_per_service": 10.0, "hours_of_service": 10.5, "hours": 10.5}, "quota.gpu_hours_per_service"),
    ],
)
def test_used_up_gpu_hours_end_what_holds_gpus(quota: dict[str, float], setting: str) -> None:
    seen = under(see_running(ready(0, gpus=2)), **quota)
    (ended,) = plan(desired(**TWO_EACH), seen).attempts
    assert (ended.outcome, f"({setting})" in ended.message) == ("QuotaExceeded", True)
    after = under(see(replace(ended, gone_at=ended.closed_at), snapshot=snapshot()), **quota)
    found = plan(desired(**TWO_EACH), after)
    assert (found.actions, condition(found.status, "Progressing").reason) == ((), "QuotaExceeded")
    fresh = replace(after, grant=Grant(quota=Quota(gpu_hours=100.0, gpu_hours_per_service=10.0)))
    assert actions(fresh, desired(**TWO_EACH)) == (Submit(token=token(0, 2)),)


def test_gpu_hours_that_are_left_end_nothing() -> None:
    quota = {"gpu_hours": 100.0, "hours": 99.0, "gpu_hours_per_service": 10.0, "hours_of_service": 9.0}
    seen = under(see_running(ready(0, gpus=2)), **quota)
    assert [a for a in plan(desired(**TWO_EACH), seen).attempts if not a.open] == []


def test_a_change_is_rolled_out_though_a_ceiling_holds_a_replica() -> None:
    """Else the replica that serves would wait for the one that may not start."""
    serving = [ready(n, gpus=2) for n in range(2)]
    changed = {**TWO_EACH, "replicas": 3, "generation": 2, "digest": "d2"}
    seen = under(see_running(*serving), gpus=4)
    assert [a.draining_since for a in plan(desired(**changed), seen).attempts] == [NOW]
    roomy = under(see_running(*serving), gpus=6)
    assert [a for a in plan(desired(**changed), roomy).attempts if not a.open] == []
