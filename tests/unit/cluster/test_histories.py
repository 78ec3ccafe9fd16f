"""What a term learns from jobs of the past, by where and what they ran."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from api.contract.launch import LaunchSpec, Resources
from controller.cluster.histories import DAYS, MOST, Histories
from controller.core.desired import Desired
from controller.core.lead import History, Measured, Way

NOW = 10_000_000.0
SPEC = LaunchSpec(
    recipe="inference/vllm", kind="service", engine="vllm", model="m", image=None, command=("vllm",), health=None,
    resources=Resources(partition="gpu", gpu=1),
)  # fmt: skip


class Past:
    """What the database holds."""

    def __init__(self, *ways: tuple[str, Way]) -> None:
        self.rows: Sequence[tuple[str, Way]] = ways
        self.asked: list[float] = []

    def now(self) -> float:
        return NOW

    async def ways(self, since: float) -> Sequence[tuple[str, Way]]:
        self.asked.append(since)
        return self.rows


def way(wait: float, startup: float | None = 30.0, intent_at: float = NOW - 1000) -> Way:
    began = intent_at + wait
    return Way(intent_at=intent_at, started_at=began, ready_at=began + startup if startup is not None else None)


def wanted(digest: str, spec: LaunchSpec | None = SPEC) -> Desired:
    return Desired(
        installation="i", service_id=f"s{digest}", name="n", generation=1, running=True, replicas=1, spec=spec,
        digest=digest,
    )  # fmt: skip


async def learnt(*ways: tuple[str, Way]) -> tuple[Histories, Past]:
    past = Past(*ways)
    histories = Histories(past, past)  # type: ignore[arg-type]
    await histories.learn()
    return histories, past


async def test_services_with_one_placement_learn_from_each_other() -> None:
    histories, past = await learnt(("a", way(10.0, 20.0)), ("b", way(40.0, 5.0)), ("c", way(1000.0)))
    other = replace(SPEC, model="larger")
    histories.of(wanted("b", other))
    histories.of(wanted("c", replace(SPEC, resources=Resources(partition="other", gpu=1))))
    await histories.learn()
    assert histories.of(wanted("a")) == History(
        waits=Measured(count=2, high=40.0), startups=Measured(count=1, high=20.0)
    )
    assert histories.of(wanted("b", other)).startups == Measured(count=1, high=5.0)
    assert past.asked == [NOW - DAYS * 86400] * 2


@pytest.mark.parametrize(
    "changes",
    [{"partition": "p"}, {"account": "a"}, {"qos": "q"}, {"gpu": 2}, {"gres": "gpu:a100:1"}, {"constraint": "c"}],
)
async def test_what_makes_another_placement(changes: dict[str, Any]) -> None:
    histories, _ = await learnt(("a", way(10.0)))
    histories.of(wanted("a"))
    other = replace(SPEC, resources=replace(SPEC.resources, **changes))
    assert histories.of(wanted("b", other)) == History()


async def test_what_no_pass_has_seen_is_left_out_and_what_is_refused_has_none() -> None:
    histories, _ = await learnt(("unknown", way(10.0)))
    assert histories.of(wanted("a")) == History()
    assert histories.of(wanted("", None)) == History()


async def test_it_is_read_again_and_only_then_changes() -> None:
    histories, past = await learnt(("a", way(10.0)))
    assert histories.of(wanted("a")).waits == Measured(count=1, high=10.0)
    past.rows = [("a", way(99.0))]
    assert histories.of(wanted("a")).waits == Measured(count=1, high=10.0)
    await histories.learn()
    assert histories.of(wanted("a")).waits == Measured(count=1, high=99.0)


async def test_the_newest_count() -> None:
    old = [("a", way(1000.0, intent_at=NOW - 5000 - n)) for n in range(50)]
    new = [("a", way(1.0, intent_at=NOW - 2000 - n)) for n in range(MOST)]
    histories, _ = await learnt(*old, *new)
    assert histories.of(wanted("a")).waits == Measured(count=MOST, high=1.0)
