"""Schedules of faults, some and in the proof ten thousand, and there each rule of the protocol taken out once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest

from tests.simulation import mutants, scenarios, schedules
from tests.simulation.adapters import BOUNDARIES, EFFECTS
from tests.simulation.faults import FAULTS

SOME, SOME_ON_SQLITE = 500, 20
MANY, MANY_ON_SQLITE = 10_000, 150
REACHED_AT_LEAST = {
    "term": 10_000,
    "sbatch accepted": 10_000,
    "sbatch killed after": 500,
    "sbatch late": 500,
    "sbatch doubled": 500,
    "sbatch lost": 500,
    "sbatch deferred": 500,
    "revoke won": 1_000,
    "revoke lost": 500,
    "cancel": 1_000,
    "other lane opened: TimeLimit": 500,
    "other lane opened: Interrupted": 300,
    "other lane opened: NodeDrains": 100,
    "other lane opened: Changed": 60,
    "told to end": 1_000,
    "drains": 400,
    "drains as surplus": 60,
    "scaled down": 20,
    "preferred again": 10,  # what is told to end is not
    "handed over": 400,
    "handed over, and cut": 100,
    "handed over before its time was over": 50,
    "ended to make room": 80,
    "ended to make room before its time was over": 30,
    "door told to drain": 1_000,
    "door opened again": 10,
    "request met a closed door": 300,
    "gateway stopped": 2_000,
    "gateway without the database": 2_000,
    "commit failed": 500,
    "commit's answer lost": 500,
    "database put back": 500,
    "all jobs forgotten": 500,
    "trap: crash": 500,
    "trap: pause": 500,
    "slot lost": 150,  # an engine that answers is not replaced any more, so fewer are met
    "a false engine called itself well": 500,
    "user: delete": 500,
    "user: pause": 250,
    **{fault.__name__: 1_000 for fault in FAULTS},
    **{f"{what} {boundary}": 3 for boundary in BOUNDARIES for what in ("crash", "pause")},
    **{f"deposed, went on {effect}": 3 for effect in EFFECTS},
}
"""How often each dangerous place must have been come to in `MANY`, for the run to be worth believing."""


def kept_by_all(count: int, *, sqlite: bool = False) -> Counter[str]:
    """Run schedules, which must all keep the rules; return what they came to, and how often."""
    ran = schedules.run(count, sqlite=sqlite)
    assert not ran.failures, f"\n{ran.tell()}"
    return ran.reached


def test_some_schedules() -> None:
    found = kept_by_all(SOME)
    about = {what: least * SOME // MANY for what, least in REACHED_AT_LEAST.items()}
    assert not {what: found[what] for what, expected in about.items() if found[what] < expected // 2}


@pytest.mark.proof
def test_ten_thousand_schedules() -> None:
    found = kept_by_all(MANY)
    assert not {what: found[what] for what, least in REACHED_AT_LEAST.items() if found[what] < least}


def test_some_schedules_on_the_real_store_and_a_real_file() -> None:
    kept_by_all(SOME_ON_SQLITE, sqlite=True)


@pytest.mark.proof
def test_many_schedules_on_the_real_store_and_a_real_file() -> None:
    kept_by_all(MANY_ON_SQLITE, sqlite=True)


@pytest.mark.parametrize("scenario", scenarios.SCENARIOS, ids=lambda s: s.__name__)
def test_scenarios(scenario: Callable[[], None]) -> None:
    assert not schedules.play(scenario).failures


@pytest.mark.proof
@pytest.mark.parametrize("mutant", mutants.MUTANTS, ids=lambda m: m.rule)
def test_a_rule_taken_out_is_noticed(mutant: mutants.Mutant) -> None:
    mutants.remember_originals()
    assert mutants.find(mutant).failures, f"nobody noticed that there is no more: {mutant.rule}"
