"""Replicas that are left out for a while, and when they come back."""

from __future__ import annotations

from api.gateway.ejection import KEPT_SECONDS, Ejections
from api.web.replicas import ReadyReplica

ONE, TWO = (
    ReadyReplica(token=token, name=token, models=("m",), host="node1", port=1, door=None) for token in ("one", "two")
)
BOTH = (ONE, TWO)


def test_two_failures_in_a_row_leave_it_out_for_a_while() -> None:
    ejections = Ejections()
    ejections.fail("one", 0)
    assert ejections.among(BOTH, 0) == [ONE, TWO]
    ejections.fail("one", 1)
    assert ejections.among(BOTH, 5.9) == [TWO]
    assert ejections.among(BOTH, 6.1) == [ONE, TWO]


def test_each_time_twice_as_long_up_to_a_minute() -> None:
    ejections, now, waits = Ejections(), 0.0, []
    ejections.fail("one", now)
    for _ in range(6):
        ejections.fail("one", now)
        began = now
        while ejections.among(BOTH, now) == [TWO]:
            now += 0.5
        waits.append(now - began)
    assert waits == [5, 10, 20, 40, 60, 60]


def test_an_answer_forgives() -> None:
    ejections = Ejections()
    ejections.fail("one", 0)
    ejections.succeed("one")
    ejections.fail("one", 1)
    assert list(ejections.among(BOTH, 1)) == [ONE, TWO]


def test_never_all() -> None:
    ejections = Ejections()
    for token in ("one", "two") * 2:
        ejections.fail(token, 0)
    assert ejections.among(BOTH, 0) == BOTH


def test_those_that_never_come_back_are_forgotten() -> None:
    ejections = Ejections()
    for token in ("one", "two"):
        ejections.fail(token, 0)
    ejections.fail("two", KEPT_SECONDS)
    assert set(ejections._records) == {"two"}
    ejections.fail("two", KEPT_SECONDS + 1)
    assert ejections.among(BOTH, KEPT_SECONDS + 2) == [ONE]
