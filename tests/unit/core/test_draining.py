"""Draining: gateways hear of it, the door is told, and then nobody new comes; neither may hold it up for long."""

from __future__ import annotations

from dataclasses import replace

import pytest

from controller.core.attempt import Attempt, Probe
from controller.core.observed import Observed
from controller.core.plan import Drain, Reopen

from .builders import LIMITS, NOW, actions, after, desired, plan, ready, see_running, token

SURPLUS = token(1)
LATE = LIMITS.drain_hears


def surplus(since: float = 1.0, *, shut_for: float | None = None, door: str | None = "k1") -> Attempt:
    """What is to go, and drains for so many seconds, from the feed's number 7 on."""
    shut_at = NOW - shut_for if shut_for is not None else None
    return ready(1, draining_since=NOW - since, draining_feed=7, shut_at=shut_at, door=door)


def seen(attempt: Attempt, *, heard: int | None = 7, is_told: bool = True) -> Observed:
    """It, beside one that stays; up to where gateways have heard, and whether its door was told."""
    found = see_running(ready(0), attempt, heard=heard)
    files = replace(found.files[attempt.token], is_told_to_drain=is_told)
    return replace(found, files={**found.files, attempt.token: files})


def quiet(found: Observed, since: float) -> Observed:
    probe = Probe(at=NOW, ready=True, failures=0, quiet_since=NOW - since)
    return replace(found, probes={**found.probes, SURPLUS: probe})


def shut_at(found: Observed) -> float | None:
    """Since when nobody new comes, after a pass."""
    changed = after(found, plan(desired(), found))[SURPLUS]
    assert changed.open
    return changed.shut_at


NEITHER_HEARD = pytest.mark.parametrize("heard", [6, 0], ids=["one has not heard", "one knows nothing yet"])
HEARD = pytest.mark.parametrize("heard", [7, 8, None], ids=["just so far", "further", "no gateway lives"])


@HEARD
def test_nobody_comes_once_all_gateways_have_heard_and_its_door_was_told(heard: int | None) -> None:
    assert shut_at(seen(surplus(), heard=heard)) == NOW


@NEITHER_HEARD
def test_not_while_a_gateway_that_lives_has_not_heard(heard: int) -> None:
    assert shut_at(seen(surplus(LATE - 1), heard=heard)) is None


def test_nor_while_its_door_was_not_told() -> None:
    assert shut_at(seen(surplus(LATE - 1), is_told=False)) is None


def test_nor_before_it_is_recorded_at_which_number_it_drains() -> None:
    assert shut_at(seen(replace(surplus(), draining_feed=None), heard=10**9)) is None


def test_since_when_stays() -> None:
    assert shut_at(seen(surplus(9.0, shut_for=3.0))) == NOW - 3.0


def test_a_gateway_that_comes_back_may_route_to_it_again() -> None:
    assert shut_at(seen(surplus(LATE - 1, shut_for=3.0), heard=6)) is None


@pytest.mark.parametrize(
    ("heard", "is_told", "is_shut"), [(6, True, True), (7, False, True), (None, False, True), (6, False, False)]
)
def test_after_a_while_either_is_enough(heard: int | None, is_told: bool, is_shut: bool) -> None:
    assert shut_at(seen(surplus(LATE), heard=heard, is_told=is_told)) == (NOW if is_shut else None)


@pytest.mark.parametrize(
    ("since", "heard", "is_shut"), [(1.0, 7, True), (1.0, None, True), (LATE - 1, 6, False), (LATE, 6, True)]
)
def test_without_a_door_only_gateways_have_to_hear(since: float, heard: int | None, is_shut: bool) -> None:
    found = seen(surplus(since, door=None), heard=heard, is_told=False)
    assert shut_at(found) == (NOW if is_shut else None)
    assert actions(found) == ()


@pytest.mark.parametrize(
    ("quiet_for", "shut_for", "ends"),
    [
        (LIMITS.drain_settles, 60.0, True),
        (LIMITS.drain_settles - 1, 60.0, False),
        (60.0, LIMITS.drain_settles, True),
        (60.0, LIMITS.drain_settles - 1, False),
        (60.0, None, False),
    ],
)
def test_it_has_drained_once_nothing_is_in_flight_and_nobody_comes(
    quiet_for: float, shut_for: float | None, ends: bool
) -> None:
    found = quiet(seen(surplus(60.0, shut_for=shut_for)), quiet_for)
    closed = {a.token: a.outcome for a in plan(desired(), found).attempts if not a.open}
    assert closed == ({SURPLUS: "ScaledDown"} if ends else {})


@pytest.mark.parametrize(
    ("is_empty", "is_told", "shut_for", "ends"),
    [
        (True, True, LIMITS.drain_settles, True),
        (False, True, 60.0, False),
        (True, False, 60.0, False),
        (True, True, LIMITS.drain_settles - 1, False),
        (True, True, None, False),
    ],
)
def test_an_engine_that_does_not_count_has_drained_once_its_door_says_so(
    is_empty: bool, is_told: bool, shut_for: float | None, ends: bool
) -> None:
    found = seen(surplus(60.0, shut_for=shut_for), is_told=is_told)
    found = replace(found, files={**found.files, SURPLUS: replace(found.files[SURPLUS], is_empty=is_empty)})
    closed = {a.token: a.outcome for a in plan(desired(), found).attempts if not a.open}
    assert closed == ({SURPLUS: "ScaledDown"} if ends else {})


@pytest.mark.parametrize(
    ("heard", "since", "is_told"),
    [(7, 0.0, True), (None, 0.0, True), (6, LATE - 1, False), (6, LATE, True)],
    ids=["heard", "no gateway lives", "not yet", "one does not confirm"],
)
def test_its_door_is_told_once_all_have_heard_or_had_time_to(heard: int | None, since: float, is_told: bool) -> None:
    """Else a gateway that could have heard would meet a closed door."""
    found = seen(surplus(since), heard=heard, is_told=False)
    assert actions(found) == ((Drain(token=SURPLUS),) if is_told else ())
    assert plan(desired(), found).look_again_at == NOW + LIMITS.glance


def test_it_is_told_once() -> None:
    assert actions(seen(surplus())) == ()


def test_what_is_closed_is_told_nothing() -> None:
    over = replace(surplus(60.0), closed_at=NOW - 1, outcome="ScaledDown")
    assert not [a for a in actions(seen(over, is_told=False)) if isinstance(a, Drain | Reopen)]


def test_what_is_preferred_again_lets_all_in() -> None:
    wanted = desired(replicas=2)
    found = seen(surplus(9.0, shut_for=3.0))
    again = after(found, plan(wanted, found))[SURPLUS]
    assert (again.draining_since, again.draining_feed, again.shut_at) == (None, None, None)
    assert actions(found, wanted) == (Reopen(token=SURPLUS),)


def test_what_serves_has_its_door_open() -> None:
    """Whenever that was told: the pass that should have taken it back may have come to nothing."""
    found = seen(ready(1, door="k1"))
    assert actions(found, desired(replicas=2)) == (Reopen(token=SURPLUS),)
    assert actions(seen(ready(1, door="k1"), is_told=False), desired(replicas=2)) == ()
