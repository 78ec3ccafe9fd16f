"""How many replicas there are to be: decided once a pass, from what people want."""

from __future__ import annotations

from controller.core.desired import Desired


def target(desired: Desired) -> int:
    """Return how many replicas of a service there are to be."""
    return desired.replicas if desired.running else 0
