"""How often the cluster is read."""

from __future__ import annotations

import itertools

import pytest

from controller.cluster.rhythm import Rhythm


def readings(rhythm: Rhythm, seconds: float, *, changing: bool, start: float = 0.0, beat: float = 2.0) -> list[float]:
    """Return when it reads if asked at every beat."""
    beats = [start + n * beat for n in range(int(seconds / beat) + 1)]
    return [now for now in beats if rhythm.is_due(now, changing=changing)]


def test_the_first_reading_is_at_once() -> None:
    assert Rhythm(2, 15).is_due(12345.0, changing=False)


def test_while_something_changes_every_beat_reads() -> None:
    assert readings(Rhythm(2, 15), 20, changing=True) == [0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20]


def test_at_rest_it_stretches_to_the_slowest_and_no_further() -> None:
    found = readings(Rhythm(2, 15), 100, changing=False)
    assert found[:4] == [0, 4, 12, 26]
    pauses = [later - earlier for earlier, later in itertools.pairwise(found[3:])]
    assert set(pauses) == {14}


def test_in_a_steady_state_it_reads_a_few_times_a_minute() -> None:
    rhythm = Rhythm(2, 15)
    readings(rhythm, 60, changing=False)
    assert len(readings(rhythm, 60, changing=False, start=62)) <= 5


def test_a_change_brings_it_back_to_every_beat() -> None:
    rhythm = Rhythm(2, 15)
    readings(rhythm, 60, changing=False)
    assert readings(rhythm, 6, changing=True, start=62) == [62, 64, 66, 68]


def test_hurry_reads_at_the_next_beat() -> None:
    rhythm = Rhythm(2, 15)
    readings(rhythm, 60, changing=False)
    assert not rhythm.is_due(61, changing=False)
    rhythm.hurry()
    assert rhythm.is_due(61, changing=False)


@pytest.mark.parametrize("jitter", [-0.9, -0.1, 0.1, 0.9])
def test_a_timer_that_is_a_little_off_is_no_reason_to_wait_for_the_next(jitter: float) -> None:
    rhythm = Rhythm(2, 15)
    assert rhythm.is_due(0, changing=True)
    assert rhythm.is_due(2 + jitter, changing=True)


def test_a_clock_put_back_stops_no_reading() -> None:
    rhythm = Rhythm(2, 15)
    assert rhythm.is_due(10_000, changing=True)
    assert rhythm.is_due(6_400, changing=True)
    assert not rhythm.is_due(6_400.5, changing=True)
