"""slurmctld's own memory (StateSaveLocation), copied now and then, so that an older one can be put in its place."""

from __future__ import annotations

import contextlib
import shutil
import threading
import time
from pathlib import Path

INTERVAL = 2.0
"""Seconds from one copy to the next."""

KEPT = 30.0
"""Seconds that a copy is kept."""


class SlurmPast:
    """Copies of slurmctld's state of the last half minute. One thread may copy while another puts one back."""

    def __init__(self, state: Path, folder: Path) -> None:
        self._state = state
        self._folder = folder
        self._folder.mkdir()
        self._lock = threading.Lock()

    def remember(self) -> None:
        """Copy the state whole, or not at all: slurmctld may replace files meanwhile."""
        draft = self._folder / "draft"
        with self._lock:
            for copy in self._folder.iterdir():
                if copy == draft or float(copy.name) < time.time() - KEPT:
                    shutil.rmtree(copy)
            with contextlib.suppress(shutil.Error, OSError):
                shutil.copytree(self._state, draft)
                draft.rename(self._folder / f"{time.time():.3f}")

    def put_back(self, age: float) -> None:
        """Put back what there was about so many seconds ago, as far as that is remembered. slurmctld must not run."""
        wanted = time.time() - age
        with self._lock:
            copies = (copy for copy in self._folder.iterdir() if copy.name != "draft")
            nearest = min(copies, key=lambda copy: abs(float(copy.name) - wanted))
            shutil.rmtree(self._state)
            shutil.copytree(nearest, self._state)
