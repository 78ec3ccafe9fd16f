"""The ledger of GPUs: promised before anything is waited for, given on in the order in which services came."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from controller.cluster.quotas import Quotas, month_of
from controller.cluster.tracked_attempts import TrackedAttempts
from controller.core.attempt import Attempt
from controller.core.observed import Quota
from controller.core.plan import Plan

NOW = datetime(2026, 3, 17, 12, tzinfo=UTC).timestamp()
WAITS = Plan(wants_gpus=1)


def attempt(service: str, gpus: int = 1) -> Attempt:
    return Attempt(
        token=f"af-i-{service}-0-1", service_id=service, replica=0, incarnation=1, generation=1, digest="d", gpus=gpus,
        intent_at=0.0,
    )  # fmt: skip


class Ledger:
    """Quotas with what they ask for."""

    def __init__(self, **ceilings: float) -> None:
        self.woken: list[str] = []
        self.hours: Mapping[str, float] = {}
        self.asked: list[tuple[float, float]] = []
        self.tracked = TrackedAttempts()
        self.quotas = Quotas(Quota(**ceilings), self.tracked, self, self.gpu_hours, self.woken.append)  # type: ignore[arg-type]

    def now(self) -> float:
        return NOW

    async def gpu_hours(self, since: float, until: float) -> Mapping[str, float]:
        self.asked.append((since, until))
        return self.hours

    def open(self, each: Attempt) -> None:
        self.quotas.promise(each.service_id, [each])
        self.tracked.update([each])
        self.quotas.settle(each.service_id, Plan())

    def end(self, each: Attempt) -> None:
        over = replace(each, closed_at=1.0, outcome="Stopped", gone_at=2.0)
        self.quotas.promise(each.service_id, [over])
        self.tracked.update([over])
        self.quotas.settle(each.service_id, Plan())

    def held_by_others(self, key: str) -> int:
        quota = self.quotas.of(key)
        assert quota is not None
        return quota.held_by_others


def test_without_ceilings_there_is_nothing_to_say() -> None:
    assert Ledger().quotas.of("a") is None


def test_what_others_hold_is_counted() -> None:
    ledger = Ledger(gpus=9)
    ledger.open(attempt("a", 2))
    ledger.open(attempt("b", 3))
    assert [ledger.held_by_others(key) for key in ("a", "b", "c")] == [3, 2, 5]
    ledger.end(attempt("b", 3))
    assert [ledger.held_by_others(key) for key in ("a", "b", "c")] == [0, 2, 2]


def test_what_is_promised_is_held_before_it_is_recorded() -> None:
    ledger = Ledger(gpus=9)
    ledger.quotas.promise("a", [attempt("a", 4)])
    assert [ledger.held_by_others(key) for key in ("a", "b")] == [0, 4]
    ledger.tracked.update([attempt("a", 4)])
    ledger.quotas.settle("a", Plan())
    assert [ledger.held_by_others(key) for key in ("a", "b")] == [0, 4]


def test_a_promise_lasts_until_it_is_known_what_came_of_it() -> None:
    """An answer of the database may be lost: the next pass of the service knows."""
    ledger = Ledger(gpus=9)
    ledger.quotas.promise("a", [attempt("a", 4)])
    ledger.quotas.promise("a", [attempt("a", 4)])
    assert ledger.held_by_others("b") == 4
    ledger.quotas.promise("a", [])
    assert ledger.held_by_others("b") == 0


def test_a_service_that_is_gone_holds_nothing() -> None:
    ledger = Ledger(gpus=9)
    ledger.quotas.promise("a", [attempt("a", 4)])
    ledger.quotas.settle("a", Plan())
    assert ledger.held_by_others("b") == 0


def test_who_waits_is_woken_in_order_one_after_another() -> None:
    ledger = Ledger(gpus=2)
    first, second = attempt("a"), attempt("b")
    ledger.open(first)
    ledger.open(second)
    for key in ("c", "d", "c"):
        ledger.quotas.settle(key, WAITS)
    assert ledger.woken == []
    ledger.end(first)
    assert ledger.woken == ["c"]
    ledger.open(attempt("c"))  # it has what it wanted: there is no room for the next
    assert ledger.woken == ["c"]
    ledger.end(second)
    assert ledger.woken == ["c", "d"]


def test_who_is_woken_and_wants_none_any_more_passes_it_on() -> None:
    ledger = Ledger(gpus=1)
    ledger.open(attempt("a"))
    for key in ("b", "c"):
        ledger.quotas.settle(key, WAITS)
    ledger.end(attempt("a"))
    ledger.quotas.settle("b", Plan())
    assert ledger.woken == ["b", "c"]


def test_only_who_fits_is_woken() -> None:
    ledger = Ledger(gpus=2)
    ledger.open(attempt("a"))
    ledger.open(attempt("b"))
    ledger.quotas.settle("large", Plan(wants_gpus=2))
    ledger.quotas.settle("small", WAITS)
    ledger.end(attempt("a"))
    assert ledger.woken == ["small"]


async def test_gpu_hours_are_those_of_the_month() -> None:
    ledger = Ledger(gpu_hours=100.0)
    ledger.hours = {"a": 60.0, "b": 30.0}
    assert await ledger.quotas.count_hours() is False
    assert ledger.asked == [(datetime(2026, 3, 1, tzinfo=UTC).timestamp(), NOW)]
    quota = ledger.quotas.of("a")
    assert quota is not None
    assert (quota.hours, quota.hours_of_service) == (90.0, 60.0)


async def test_it_is_told_when_a_service_is_stopped_and_when_no_longer() -> None:
    ledger = Ledger(gpu_hours_per_service=50.0)
    told = []
    for used in ({"a": 49.0}, {"a": 50.0}, {"a": 51.0, "b": 1.0}, {}):
        ledger.hours = used
        told.append(await ledger.quotas.count_hours())
    assert told == [False, True, False, True]


async def test_nothing_is_counted_where_no_hours_are_limited() -> None:
    ledger = Ledger(gpus=1)
    assert await ledger.quotas.count_hours() is False
    assert ledger.asked == []


@pytest.mark.parametrize(
    ("at", "month"),
    [("2026-01-01T00:00:00", "2026-01-01"), ("2026-12-31T23:59:59", "2026-12-01"), ("2024-02-29T10:00", "2024-02-01")],
)
def test_months_are_those_of_utc(at: str, month: str) -> None:
    began = datetime.fromtimestamp(month_of(datetime.fromisoformat(f"{at}+00:00").timestamp()), UTC)
    assert began == datetime.fromisoformat(f"{month}T00:00:00+00:00")
