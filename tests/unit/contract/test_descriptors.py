"""As many descriptors as this process may have, and whether they are running short."""

from __future__ import annotations

import os
import resource

import pytest

from api.contract import descriptors
from tests.descriptors import none_left


def test_descriptors_are_short_when_nearly_all_are_in_use() -> None:
    assert not descriptors.are_short()
    with none_left():
        assert descriptors.are_short()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest_free = os.dup(0)
    os.close(lowest_free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free + 1, hard))
    try:
        assert descriptors.are_short()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize(("hard", "expected"), [(4096, 4096), (1_000_000, 65_536), (resource.RLIM_INFINITY, 65_536)])
def test_the_soft_limit_is_raised(monkeypatch: pytest.MonkeyPatch, hard: int, expected: int) -> None:
    limits = [(1024, hard)]
    monkeypatch.setattr(resource, "getrlimit", lambda _: limits[-1])
    monkeypatch.setattr(resource, "setrlimit", lambda _, wanted: limits.append(wanted))
    descriptors.raise_limit()
    assert limits[1:] == [(expected, hard)]
    descriptors.raise_limit()
    assert len(limits) == 2, "it is never lowered, and set once"
    assert descriptors.limit() == expected
