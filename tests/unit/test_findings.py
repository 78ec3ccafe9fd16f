"""A run of `make chaos` is clean only if it tried what it says, and looked."""

from __future__ import annotations

import pytest

from tests.cluster.findings import LONG, Findings


@pytest.mark.parametrize(
    ("kills", "struck", "samples", "told"),
    [
        (LONG, 1, 95, []),
        (LONG, 0, 95, ["never struck: slurmd killed"]),
        (LONG - 1, 0, 95, []),
        (LONG, 1, 60, ["what lives was looked at 60 times in 100 s"]),
    ],
    ids=["all", "a kind that never struck", "too short to ask for each", "a sampler that stopped"],
)
def test_what_a_run_does_not_prove_is_said(kills: int, struck: int, samples: int, told: list[str]) -> None:
    findings = Findings(seed=1, seconds=100.0)
    findings.kills["SIGKILL"], findings.faults["slurmd killed"] = kills, struck
    findings.vouch(["slurmd killed"], samples)
    assert findings.unproved == told
    assert findings.clean is not bool(told)
