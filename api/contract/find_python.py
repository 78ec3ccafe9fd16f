"""The Python that a job's supervisor runs on."""

from __future__ import annotations

OLDEST = (3, 9)
"""The oldest that will do on the nodes."""
