"""Pieces of shell that stand in every job's script and in doctor's: how a job finds Python, and the site's modules."""

from __future__ import annotations

import re
from pathlib import Path

OLDEST = (3, 9)
"""The oldest Python that will do on the nodes."""


def complete(script: str) -> str:
    """Return a script with each line `# include NAME` replaced by that piece: `find_python`, `login_profile`."""
    return re.sub(r"(?m)^ *# include (\w+)\n", lambda found: _piece(found[1]), script)


def _piece(name: str) -> str:
    return Path(__file__).with_name(f"{name}.sh").read_text(encoding="utf-8")
