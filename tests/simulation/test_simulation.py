"""Ten thousand schedules of faults, and each rule of the protocol taken out once."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.simulation import mutants, scenarios, schedules
from tests.simulation.adapters import BOUNDARIES, EFFECTS
from tests.simulation.faults import FAULTS

IN_MEMORY = 10_000
ON_SQLITE = 300
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
    "commit failed": 500,
    "commit's answer lost": 500,
    "database put back": 500,
    "all jobs forgotten": 500,
    "trap: crash": 500,
    "trap: pause": 500,
    "slot lost": 300,
    "a false engine called itself well": 500,
    "user: delete": 500,
    **{fault.__name__: 1_000 for fault in FAULTS},
    **{f"{what} {boundary}": 3 for boundary in BOUNDARIES for what in ("crash", "pause")},
    **{f"deposed, went on {effect}": 3 for effect in EFFECTS},
}
"""How often each dangerous place must have been come to, for the run to be worth believing."""


def test_ten_thousand_schedules() -> None:
    in_memory = schedules.run(IN_MEMORY)
    assert not in_memory.failures, f"\n{in_memory.tell()}"
    found = in_memory.reached
    assert not {what: found[what] for what, least in REACHED_AT_LEAST.items() if found[what] < least}


def test_schedules_on_the_real_store_and_a_real_file() -> None:
    on_sqlite = schedules.run(ON_SQLITE, sqlite=True)
    assert not on_sqlite.failures, f"\n{on_sqlite.tell()}"


@pytest.mark.parametrize("scenario", scenarios.SCENARIOS, ids=lambda s: s.__name__)
def test_scenarios(scenario: Callable[[], None]) -> None:
    assert not schedules.play(scenario).failures


@pytest.mark.parametrize("mutant", mutants.MUTANTS, ids=lambda m: m.rule)
def test_a_rule_taken_out_is_noticed(mutant: mutants.Mutant) -> None:
    mutants.remember_originals()
    assert mutants.find(mutant).failures, f"nobody noticed that there is no more: {mutant.rule}"
