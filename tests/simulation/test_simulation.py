"""Ten thousand schedules of faults, and each rule of the protocol taken out once."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.simulation import mutants, scenarios, schedules

SCHEDULES = 10_000
REACHED_AT_LEAST = {
    "term": 10_000,
    "sbatch accepted": 10_000,
    "sbatch killed after": 500,
    "sbatch late": 500,
    "sbatch doubled": 500,
    "sbatch lost": 500,
    "revoke won": 1_000,
    "revoke lost": 500,
    "cancel": 1_000,
    "commit's answer lost": 500,
    "controller_crashes": 1_000,
    "controller_pauses": 1_000,
    "slurmctld_silent": 1_000,
    "slurmctld_loses_state": 1_000,
    "listing_lies": 1_000,
    "accounting_down": 1_000,
    "node_dies": 1_000,
    "requeued": 1_000,
    "held": 1_000,
    "look_alike": 1_000,
    "database_fails": 1_000,
    "database put back": 500,
    "shared_folder_fails": 1_000,
    "files_late": 1_000,
    "engine_hangs": 1_000,
}
"""How often each dangerous place must have been come to, for the run to be worth believing."""


def test_ten_thousand_schedules() -> None:
    outcome = schedules.run(SCHEDULES)
    assert not outcome.failures, f"\n{outcome.tell()}"
    found = outcome.reached
    too_rare = {what: found[what] for what, least in REACHED_AT_LEAST.items() if found[what] < least}
    assert not too_rare


@pytest.mark.parametrize("scenario", scenarios.SCENARIOS, ids=lambda s: s.__name__)
def test_scenarios(scenario: Callable[[], None]) -> None:
    assert not schedules.play(scenario).failures


@pytest.mark.parametrize("mutant", mutants.MUTANTS, ids=lambda m: m.rule)
def test_a_rule_taken_out_is_noticed(mutant: mutants.Mutant) -> None:
    mutants.remember_originals()
    assert mutants.find(mutant).failures, f"nobody noticed that there is no more: {mutant.rule}"
