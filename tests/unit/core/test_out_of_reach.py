"""An engine that listens, and that the controller's host can't reach: said at once, and not waited for like a start."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from controller.core.attempt import Attempt, Probe
from controller.core.observed import Observed

from .builders import JOB, LIMITS, NOW, claim, condition, desired, only, plan, ready, see_running, started

LONG_AGO = NOW - LIMITS.unreachable_grace
TRIED = "https://n1:20001: this host knows no address of that name"


def unreached(attempt: Attempt, step: str = "serving", since: float = LONG_AGO, **changes: Any) -> Observed:
    probe = Probe(at=NOW, ready=False, failures=9, message=TRIED, unreached_since=since)
    return replace(
        see_running(attempt),
        files=claim(attempt, step=step, port=20001),
        probes={attempt.token: replace(probe, **changes)},
    )


def listening(door: str | None = None, since: float = LONG_AGO) -> Attempt:
    return started(door=door, launched_at=since, serving_at=None if door else since, port=20001)


@pytest.mark.parametrize(
    ("door", "step"), [(None, "serving"), ("k1", "serving"), ("k1", "loading"), ("k1", "starting")]
)
def test_it_is_said_with_the_address_and_ends_after_two_minutes(door: str | None, step: str) -> None:
    soon = plan(desired(), unreached(listening(door, NOW), step, NOW))
    said = condition(soon.status, "Progressing").message
    assert said.startswith(f"The job {JOB} runs on ")
    assert f"can't be reached from the controller's host: {TRIED}. See that" in said
    ended = only(unreached(listening(door), step))
    assert (ended.outcome, TRIED in ended.message) == ("Unreachable", True)


@pytest.mark.parametrize(
    "seen",
    [
        pytest.param(unreached(listening(), "loading"), id="without a door nothing listens yet"),
        pytest.param(unreached(listening(), since=LONG_AGO + 1), id="it could be reached a moment ago"),
        pytest.param(unreached(listening(since=LONG_AGO + 1)), id="it listens for a moment only"),
        pytest.param(unreached(listening("k1"), unreached_since=None), id="it is reached and not ready"),
        pytest.param(unreached(listening(), failures=0), id="what this host lacks"),
        pytest.param(unreached(ready(0), failures=1), id="it was ready before"),
    ],
)
def test_it_lives_on(seen: Observed) -> None:
    assert only(seen).open


def test_a_node_without_an_address_is_called_by_its_name() -> None:
    seen = see_running(started())
    assert seen.snapshot is not None
    nameless = replace(seen, snapshot=replace(seen.snapshot, addresses={"n1": ""}))
    found = only(nameless)
    assert found.host == found.node
