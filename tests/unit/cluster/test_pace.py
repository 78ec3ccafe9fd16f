"""The pace of submissions: a burst, then a steady rate, each waiting service with a turn of its own."""

from __future__ import annotations

import pytest

from controller.cluster.pace import Pace


class Clock:
    time = 1000.0

    def now(self) -> float:
        return self.time


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def pace(clock: Clock) -> Pace:
    return Pace(clock, burst=3, per_second=0.5)


def submit(pace: Pace, count: int, key: str = "a") -> None:
    for _ in range(count):
        pace.submitted(key)


def test_a_burst_goes_at_once_and_fills_again(clock: Clock, pace: Pace) -> None:
    allowed = []
    for _ in range(4):
        allowed.append(pace.allowance("a"))
        submit(pace, 1)
    assert allowed == [3, 2, 1, 0]
    clock.time += 2 + 2 * 2  # the fourth was ahead of its time
    assert pace.allowance("a") == 2
    clock.time += 1000
    assert pace.allowance("a") == 3


def test_turns_are_given_in_order_and_kept(clock: Clock, pace: Pace) -> None:
    submit(pace, 3)
    assert [pace.reserve(key) for key in ("b", "c", "b", "d")] == [1002.0, 1004.0, 1002.0, 1006.0]
    assert pace.allowance("b") == 0
    clock.time = 1002.0
    assert (pace.allowance("b"), pace.allowance("c"), pace.allowance("other")) == (1, 0, 0)
    submit(pace, 1, "b")
    assert pace.reserve("b") == 1008.0


def test_a_turn_while_there_is_room_is_now(clock: Clock, pace: Pace) -> None:
    assert pace.reserve("a") == 1000.0
    assert pace.allowance("a") == 1


def test_a_turn_that_is_released_is_not_kept(clock: Clock, pace: Pace) -> None:
    submit(pace, 3)
    pace.reserve("b")
    pace.release("b")
    pace.release("never had one")
    clock.time = 1002.0
    assert pace.allowance("b") == 0


def test_over_a_long_time_the_rate_is_kept(clock: Clock, pace: Pace) -> None:
    sent: list[float] = []
    while clock.time < 1100.0:
        for key in map(str, range(40)):
            if pace.allowance(key):
                pace.submitted(key)
                sent.append(clock.time)
            else:
                pace.reserve(key)
        clock.time += 0.5
    assert sent[:3] == [1000.0] * 3
    assert len(sent) == 3 + 49
