"""Admission: asked, held before the record, settled after it; the pace and the quotas as one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from controller.cluster.admission import Admission
from controller.cluster.pace import Pace
from controller.cluster.quotas import Quotas
from controller.cluster.tracked_attempts import TrackedAttempts
from controller.core.attempt import Attempt
from controller.core.observed import Grant, Quota
from controller.core.plan import Cancel, Plan, Submit

NOW = 1000.0
A = Attempt(token="a", service_id="one", replica=0, incarnation=1, generation=1, digest="d", gpus=2, intent_at=0.0)
SUBMITS = Plan(actions=(Submit(token="a"), Cancel(token="c", job_id=1)))


class World:
    """Two jobs at once, then one every two seconds; four GPUs."""

    def __init__(self) -> None:
        self.woken: list[str] = []
        self.tracked = TrackedAttempts()
        quotas = Quotas(Quota(gpus=4), self.tracked, self, self.gpu_hours, self.woken.append)
        self.admission = Admission(Pace(self, burst=2, per_second=0.5), quotas)

    def now(self) -> float:
        return NOW

    async def gpu_hours(self, *_: float) -> Mapping[str, float]:
        return {}

    def held(self, key: str) -> int:
        """What others than this service hold."""
        quota = self.admission.ask(key).quota
        assert quota is not None
        return quota.held_by_others


@pytest.fixture
def world() -> World:
    return World()


def test_what_is_granted_is_what_pace_and_quotas_leave(world: World) -> None:
    assert world.admission.ask("one") == Grant(jobs=2, quota=Quota(gpus=4))


def test_what_is_held_is_no_others_before_and_after_it_is_settled(world: World) -> None:
    world.admission.hold("one", [A])
    assert (world.held("one"), world.held("two")) == (0, 2)
    world.tracked.update([A])
    world.admission.settle("one", SUBMITS)
    assert (world.held("one"), world.held("two")) == (0, 2)


def test_what_is_held_and_never_recorded_is_held_until_the_next_pass(world: World) -> None:
    world.admission.hold("one", [A])
    world.admission.ask("one")
    assert world.held("two") == 2
    world.admission.hold("one", [])
    assert world.held("two") == 0


def test_only_what_is_recorded_counts_for_the_pace(world: World) -> None:
    world.admission.hold("one", [A])
    assert world.admission.ask("two").jobs == 2
    assert world.admission.settle("one", SUBMITS) is None
    assert world.admission.ask("two").jobs == 1


def test_who_has_to_wait_is_told_when_its_turn_comes_and_keeps_it_while_it_is_wanted(world: World) -> None:
    for key in ("x", "y"):
        world.admission.settle(key, SUBMITS)
    waits = Plan(wants_turn=True)
    assert [world.admission.settle(key, waits) for key in ("one", "two", "one")] == [NOW + 2, NOW + 4, NOW + 2]
    assert world.admission.settle("one", Plan()) is None
    assert world.admission.settle("one", waits) == NOW + 6


def test_a_service_that_is_no_more_has_no_turn_and_waits_for_nothing(world: World) -> None:
    full = replace(A, gpus=4)
    world.admission.hold("one", [full])
    world.tracked.update([full])
    world.admission.settle("one", SUBMITS)
    for key in ("two", "three"):
        world.admission.settle(key, Plan(wants_gpus=1))
    world.tracked.update([replace(full, closed_at=1.0, gone_at=2.0)])
    world.admission.forget("two")
    assert world.woken == ["three"]
