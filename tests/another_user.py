"""Another user of the host, as whom files are left."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

UID = 54321
"""Nobody's."""


def give_away(path: Path, *, follow_symlinks: bool = True) -> None:
    """Have a file or folder belong to another user."""
    if os.geteuid() != 0:
        pytest.fail("only root can give a file to another user: run the tests as root")
    os.chown(path, UID, -1, follow_symlinks=follow_symlinks)
