"""Engines that mean ill: whatever they answer, who asks them neither grows nor stands still."""

from __future__ import annotations

import json
import subprocess
import sys

from tests.evil_engine import MODES, evil_engines
from tests.pages import ROOT

MOST_GROWN = 60
"""MiB, where three ask at once."""
MOST_STALLED = 0.4
"""Seconds of the event loop's own time."""
WAYS = 5


def test_no_answer_hurts() -> None:
    with evil_engines() as ports:
        argv = [sys.executable, "-m", "tests.evil_asking", json.dumps(ports)]
        done = subprocess.run(argv, cwd=ROOT, stdout=subprocess.PIPE, text=True, timeout=300, check=True)
    costs = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(costs) == WAYS * len(MODES)
    assert [cost for cost in costs if cost["grown_mib"] > MOST_GROWN or cost["stalled"] > MOST_STALLED] == []
