"""How many requests an engine has in flight, by its own count (vLLM: `/metrics`, Prometheus' text format)."""

from __future__ import annotations

import re

PATH = "/metrics"
_COUNT = re.compile(rb"^vllm:num_requests_(?:running|waiting)(?:\{[^\n]*\})? ([0-9.eE+]{1,32})\s*$", re.MULTILINE)


def in_flight(metrics: bytes) -> float | None:
    """Return what runs and what waits, of all its ranks; `None` if it does not say."""
    found = [float(number) for number in _COUNT.findall(metrics)]
    return sum(found) if found else None
