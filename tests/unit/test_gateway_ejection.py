"""Replicas that are left out for a while, and when they come back."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.gateway.ejection import KEPT_SECONDS, Ejections
from api.web.replicas import ReadyReplica

ONE, TWO = (
    ReadyReplica(token=token, name=token, models=("m",), host="node1", port=1, door=None) for token in ("one", "two")
)
BOTH = (ONE, TWO)


def errors(ejections: Ejections, *callers: str, now: float = 0.0, status: int = 500) -> None:
    for caller in callers:
        ejections.answer("one", status, caller, now)


def is_out(ejections: Ejections, now: float) -> bool:
    return list(ejections.among(BOTH, now)) == [TWO]


def test_two_connections_that_fail_in_a_row_leave_it_out_for_a_while() -> None:
    ejections = Ejections()
    ejections.fail("one", 0)
    assert not is_out(ejections, 0)
    ejections.fail("one", 1)
    assert is_out(ejections, 5.9)
    assert not is_out(ejections, 6.1)


def test_five_errors_to_two_callers_in_ten_seconds_leave_it_out() -> None:
    ejections = Ejections()
    errors(ejections, "a", "a", "b", "a")
    assert not is_out(ejections, 0)
    errors(ejections, "a", now=10.0)
    assert is_out(ejections, 14.9)


@pytest.mark.parametrize(
    ("callers", "now", "status"),
    [("aaaaaaaaaa", 0.0, 500), ("abab", 0.0, 500), ("ababababab", 0.0, 503), ("ababababab", 0.0, 499)],
    ids=["one caller's requests", "too few", "load", "mistakes"],
)
def test_what_leaves_nothing_out(callers: str, now: float, status: int) -> None:
    ejections = Ejections()
    errors(ejections, *callers, now=now, status=status)
    assert not is_out(ejections, now)


def test_errors_long_ago_do_not_count() -> None:
    ejections = Ejections()
    errors(ejections, "a", "b", "a")
    errors(ejections, "a", "b", now=10.1)
    assert not is_out(ejections, 10.1)


def test_each_time_twice_as_long_up_to_a_minute() -> None:
    ejections, now, waits = Ejections(), 0.0, []
    ejections.fail("one", now)
    for _ in range(6):
        ejections.fail("one", now)
        began = now
        while is_out(ejections, now):
            now += 0.5
        waits.append(now - began)
    assert waits == [5, 10, 20, 40, 60, 60]


def test_one_request_at_a_time_tries_it_and_its_answer_decides() -> None:
    ejections = Ejections()
    errors(ejections, *"ababa")
    assert not ejections.begin("one", 4.9)
    assert ejections.begin("one", 5)
    assert is_out(ejections, 5)
    assert not ejections.begin("one", 5)
    ejections.give_up("one")
    assert not is_out(ejections, 5)
    assert ejections.begin("one", 5)
    errors(ejections, "a", now=6)
    assert is_out(ejections, 15.9)
    assert ejections.begin("one", 16)
    errors(ejections, "a", now=16, status=200)
    assert not is_out(ejections, 16)
    errors(ejections, *"ababa", now=17)
    assert is_out(ejections, 21.9)
    assert not is_out(ejections, 22)


def test_what_was_under_way_before_changes_nothing_while_it_is_out() -> None:
    ejections = Ejections()
    errors(ejections, *"ababa")
    errors(ejections, *"ababab", now=1)
    errors(ejections, "a", now=1, status=200)
    assert is_out(ejections, 4.9)
    assert not is_out(ejections, 5)


def test_an_answer_forgives_connections() -> None:
    ejections = Ejections()
    ejections.fail("one", 0)
    ejections.answer("one", 200, "a", 0)
    ejections.fail("one", 1)
    assert not is_out(ejections, 1)


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


GAPS, STATUSES = st.sampled_from([0.0, 0.5, 3.0, 11.0, 70.0]), st.sampled_from([200, 500, 502, 503, 504])
ANSWERS = st.lists(st.tuples(GAPS, st.sampled_from("abc"), STATUSES), max_size=40)
STEPS = st.sampled_from(["fail", "answer", "begin", "give_up"])


def naive(answers: Sequence[tuple[float, str, int]]) -> float | None:
    """Say when it is first left out, by looking at all that was answered."""
    now, bad = 0.0, []
    for gap, caller, status in answers:
        now += gap
        if status in (500, 502, 504):
            bad.append((now, caller))
            recent = [whose for at, whose in bad if now - at <= 10]
            if len(recent) >= 5 and len(set(recent)) >= 2:
                return now
    return None


@given(ANSWERS)
def test_it_is_left_out_when_it_should_be(answers: list[tuple[float, str, int]]) -> None:
    ejections, now, when = Ejections(), 0.0, None
    for gap, caller, status in answers:
        now += gap
        ejections.answer("one", status, caller, now)
        if is_out(ejections, now):
            when = now
            break
    assert when == naive(answers)


@given(st.lists(st.tuples(STEPS, st.sampled_from(["one", "two"]), GAPS, STATUSES), max_size=60))
def test_whatever_happens_some_may_be_asked_and_all_again_within_a_minute(
    steps: list[tuple[str, str, float, int]],
) -> None:
    ejections, now = Ejections(), 0.0
    for number, (what, token, gap, status) in enumerate(steps):
        now += gap
        match what:
            case "fail":
                ejections.fail(token, now)
            case "answer":
                ejections.answer(token, status, str(number % 2), now)
            case "begin":
                ejections.begin(token, now)
            case "give_up":
                ejections.give_up(token)
        assert ejections.among(BOTH, now)
        assert list(ejections.among([ONE], now)) == [ONE]
    for token in ("one", "two"):
        ejections.give_up(token)
    assert list(ejections.among(BOTH, now + 60)) == [ONE, TWO]
