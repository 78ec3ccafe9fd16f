"""File descriptors: as many as this process may have, and whether they are running short."""

from __future__ import annotations

import os
import resource

MOST = 65_536
"""Descriptors: more than is ever needed. Programs that we start inherit the limit, and some go through all numbers."""
ENOUGH = 0.9
"""The part of them that may be in use before they count as short."""


def raise_limit() -> None:
    """Let this process, and what it starts, have as many descriptors as the hard limit allows, up to `MOST`."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST if hard == resource.RLIM_INFINITY else min(hard, MOST)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def limit() -> int:
    """Return how many descriptors this process may have."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MOST if soft == resource.RLIM_INFINITY else soft


def are_short() -> bool:
    """Whether nearly all are in use. The kernel gives out the lowest free number: all below it are taken."""
    try:
        lowest_free = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return True
    os.close(lowest_free)
    return lowest_free >= ENOUGH * limit()
