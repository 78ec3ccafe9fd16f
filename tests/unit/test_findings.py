"""A run of `make chaos` is clean only if it tried what it says, and looked."""

from __future__ import annotations

import pytest

from tests.cluster.findings import LONG, TAKEN_OVER, Findings


@pytest.mark.parametrize(
    ("kills", "struck", "ready", "samples", "told"),
    [
        (LONG, 1, 1, 95, []),
        (LONG, 0, 1, 95, ["never struck: slurmd killed"]),
        (LONG, 1, 0, 95, ["no replica was handed over"]),
        (LONG - 1, 0, 0, 95, []),
        (LONG, 1, 1, 60, ["what lives was looked at 60 times in 100 s"]),
    ],
    ids=["all", "a kind that never struck", "no hand-over", "too short to ask for each", "a sampler that stopped"],
)
def test_what_a_run_does_not_prove_is_said(kills: int, struck: int, ready: int, samples: int, told: list[str]) -> None:
    findings = Findings(seed=1, seconds=100.0)
    findings.kills["SIGKILL"], findings.faults["slurmd killed"] = kills, struck
    findings.work[TAKEN_OVER] = ready
    findings.vouch(["slurmd killed"], samples)
    assert findings.unproved == told
    assert findings.clean is not bool(told)
