"""The clock of a term: it never jumps, and comes nearer to the host's."""

from __future__ import annotations

import pytest

from controller.clock import SystemClock, TermClock


class Host:
    wall = 5000.0
    monotonic = 70.0

    def go(self, seconds: float) -> None:
        self.wall += seconds
        self.monotonic += seconds


@pytest.fixture
def host() -> Host:
    return Host()


@pytest.fixture
def clock(host: Host) -> TermClock:
    return TermClock(5000.0, lambda: host.wall, lambda: host.monotonic)


def test_it_goes_as_the_hosts_does(host: Host, clock: TermClock) -> None:
    assert clock.now() == 5000.0
    host.go(100)
    assert clock.now() == 5100.0
    assert clock.now() == 5100.0


@pytest.mark.parametrize("jump", [3600.0, -3600.0])
def test_a_jump_of_the_hosts_clock_is_followed_gently(host: Host, clock: TermClock, jump: float) -> None:
    host.wall += jump
    assert clock.now() == 5000.0
    host.go(10)
    assert clock.now() == pytest.approx(5010 + (0.5 if jump > 0 else -0.5))
    for _ in range(7300):
        before = clock.now()
        host.go(10)
        assert before < clock.now()
    assert clock.now() == pytest.approx(host.wall)


def test_the_time_of_this_host() -> None:
    assert TermClock(SystemClock.now()).now() == pytest.approx(SystemClock.now(), abs=5)
