"""How a job finds the Python that runs its supervisor: one piece of shell, in every job's script and in doctor's."""

from __future__ import annotations

from pathlib import Path

OLDEST = (3, 9)
"""The oldest Python that will do on the nodes."""


def shell() -> str:
    """Return the shell function `find_python`; what it takes and gives stands at its top."""
    return Path(__file__).with_suffix(".sh").read_text(encoding="utf-8")
