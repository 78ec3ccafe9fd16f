"""Where tests put what they write again and again, and what no crash of the machine need outlive."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

ROOM = 2**30


def in_memory() -> Path | None:
    """Return a folder in memory, where there is room: every test copies a database. `None`: the usual place."""
    memory = Path("/dev/shm")
    roomy = memory.is_dir() and os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > ROOM
    return memory if roomy else None
