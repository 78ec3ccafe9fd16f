"""What limits let through, and when: exactly so much in any time, whatever is asked. Virtual time."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from api.gateway.limits import MINUTE, MOST_USED, Account, Refusal, admitted, aged, allowance, settled, wait
from api.web.key_limits import KeyLimits

LIMIT = st.integers(1, 100_000)
GAPS = st.lists(st.integers(0, 2 * MINUTE), max_size=60)
LATER = 10**12
"""A host that has been up for some days."""


def passed(limits: KeyLimits, gaps: list[int], tokens: int = 0) -> list[int]:
    """Ask after each of these times; return when something passed."""
    account, now, times = Account(), LATER, []
    for gap in gaps:
        now += gap
        found = admitted(account, limits, tokens, now)
        if isinstance(found, Account):
            account = settled(found, limits, 0, 0, now)
            times.append(now)
    return times


@given(st.integers(1, 5), GAPS)
def test_in_no_time_more_than_the_limit_allows(limit: int, gaps: list[int]) -> None:
    times = passed(KeyLimits(requests_per_minute=limit), gaps)
    for first in range(len(times)):
        for last in range(first, len(times)):
            assert (last - first + 1) * MINUTE <= limit * (MINUTE + times[last] - times[first])


@given(LIMIT, st.integers(0, 50), GAPS)
def test_after_the_wait_that_was_told_it_passes_and_not_before(limit: int, tokens: int, gaps: list[int]) -> None:
    limits = KeyLimits(requests_per_minute=limit, tokens_per_minute=limit)
    account, now = Account(), LATER
    for gap in gaps:
        now += gap
        found = admitted(account, limits, tokens, now)
        if isinstance(found, Refusal):
            assert found.wait is not None
            assert isinstance(admitted(account, limits, tokens, now + found.wait - 1), Refusal)
            found = admitted(account, limits, tokens, now + found.wait)
        assert isinstance(found, Account)
        account = found


@given(LIMIT)
def test_a_wait_is_never_too_short_for_a_fraction(limit: int) -> None:
    limits, full = KeyLimits(requests_per_minute=limit), Account(requests=limit * MINUTE, requests_as_of=LATER)
    least = wait(full.requests, 1, limit)
    assert aged(full, limits, LATER + least).requests + MINUTE <= limit * MINUTE
    assert aged(full, limits, LATER + least - 1).requests + MINUTE > limit * MINUTE


@given(st.integers(1, 1000))
def test_a_whole_minutes_worth_passes_at_once_and_no_more(limit: int) -> None:
    limits = KeyLimits(requests_per_minute=limit)
    times = passed(limits, [0] * (limit + 3))
    assert times == [LATER] * limit


@given(st.integers(1, 7), GAPS, st.integers(0, 5))
def test_what_is_refused_changes_nothing(limit: int, gaps: list[int], more: int) -> None:
    """Who tries again and again waits no longer: between two tries others that are refused make no difference."""
    limits = KeyLimits(requests_per_minute=limit)
    patient, account, now = Account(), Account(), LATER
    for gap in gaps:
        for _ in range(more):
            now += gap // (more + 1)
            if isinstance(refusal := admitted(account, limits, 0, now), Refusal):
                assert refusal == admitted(patient, limits, 0, now)
        now += gap
        once, twice = admitted(patient, limits, 0, now), admitted(account, limits, 0, now)
        assert once == twice
        patient, account = (found if isinstance(found, Account) else patient for found in (once, twice))


@given(LIMIT, st.lists(st.tuples(st.integers(0, MINUTE), st.integers(0, 5000), st.integers(0, 5000)), max_size=30))
def test_of_tokens_what_was_thought_is_made_what_it_was(limit: int, asked: list[tuple[int, int, int]]) -> None:
    """Over any time: what engines counted, but for the last request that passed, is no more than the limit allows."""
    limits = KeyLimits(tokens_per_minute=limit)
    account, now, counted = Account(), LATER, [(LATER, 0)]
    for gap, thought, was in asked:
        now += gap
        found = admitted(account, limits, thought, now)
        if isinstance(found, Account):
            before = sum(tokens for _, tokens in counted)
            assert before * MINUTE <= limit * (MINUTE + now - LATER)
            account = settled(found, limits, 0, was - thought, now)
            counted.append((now, was))
    assert all(one[0] <= two[0] for one, two in pairwise(counted))


def test_a_request_larger_than_a_minutes_worth_waits_until_all_is_there() -> None:
    limits = KeyLimits(tokens_per_minute=60)
    account = admitted(Account(), limits, 1, LATER)
    assert isinstance(account, Account)
    assert admitted(account, limits, 600, LATER) == Refusal("tokens_per_minute", MINUTE // 60)
    large = admitted(account, limits, 600, LATER + MINUTE // 60)
    assert isinstance(large, Account)
    assert admitted(large, limits, 0, LATER + MINUTE // 60) == Refusal("tokens_per_minute", 9 * MINUTE)


def test_of_two_reasons_the_longer_wait() -> None:
    limits = KeyLimits(requests_per_minute=1, tokens_per_minute=1, requests_at_once=1)
    account = admitted(Account(), limits, 3, LATER)
    assert isinstance(account, Account)
    assert admitted(account, limits, 1, LATER) == Refusal("tokens_per_minute", 3 * MINUTE)
    only = KeyLimits(requests_at_once=1)
    assert admitted(account, only, 1, LATER) == Refusal("requests_at_once", None)
    assert isinstance(admitted(Account(at_once=0), only, 1, LATER), Account)


@given(LIMIT, st.integers(0, 100), st.integers(0, MINUTE))
def test_what_is_left_is_told_exactly(limit: int, taken: int, later: int) -> None:
    limits = KeyLimits(tokens_per_minute=limit)
    then = aged(Account(tokens=taken * MINUTE, tokens_as_of=LATER), limits, LATER + later)
    left = allowance(then.tokens, limit)
    if left.remaining:
        assert wait(then.tokens, left.remaining, limit) == 0
    assert left.remaining == limit or wait(then.tokens, left.remaining + 1, limit) > 0
    assert aged(then, limits, LATER + later + left.reset).tokens == 0
    assert left.reset == 0 or aged(then, limits, LATER + later + left.reset - 1).tokens > 0


def test_a_clock_that_has_begun_anew_holds_nobody() -> None:
    limits = KeyLimits(requests_per_minute=1, tokens_per_minute=1)
    account = Account(100 * MINUTE, LATER, 100 * MINUTE, LATER, at_once=3)
    assert isinstance(admitted(account, limits, 1, LATER), Refusal)
    assert admitted(account, limits, 1, 5) == Account(MINUTE, 5, MINUTE, 5, at_once=4)


def test_what_ends_under_other_limits_leaves_alone_what_these_did_not_count() -> None:
    """Whoever changes a key's limits while one of its requests is answered for hours."""
    before, after = KeyLimits(requests_at_once=9), KeyLimits(requests_per_minute=60, tokens_per_minute=100)
    first = admitted(Account(), before, 0, LATER)
    assert first == Account(at_once=1), "what has no limit is not counted"
    second = admitted(first, after, 100, LATER + 1)
    assert second == Account(MINUTE, LATER + 1, 100 * MINUTE, LATER + 1, at_once=2)
    ended = settled(second, before, 0, 50, LATER + 2)
    assert ended == second._replace(at_once=1)
    assert isinstance(admitted(ended, after, 1, LATER + 2), Refusal)


def test_no_bucket_is_fuller_than_full_nor_holds_more_than_fits_into_the_file() -> None:
    limits = KeyLimits(requests_per_minute=1, tokens_per_minute=1)
    account = admitted(Account(), limits, 10**16, LATER)
    assert account == Account(MINUTE, LATER, MOST_USED, LATER, at_once=1)
    assert settled(account, limits, -2, -(10**16), LATER) == Account(0, LATER, 0, LATER)
