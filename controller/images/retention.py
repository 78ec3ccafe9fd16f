"""The controller's part: images that nothing has used for days are cleared away, and what was left of their making."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
from pathlib import Path

from api.contract.database import Database
from controller.images.prune import sweep
from controller.images.usage import usage
from controller.ports import Clock
from controller.wanted import Wanted

log = logging.getLogger(__name__)

FORGOTTEN = 30 * 86400.0
"""Seconds after which nobody needs what a maker wrote; its job may have waited for long."""


class ImageRetention:
    """Clears the cache of what has been unused for `keep` seconds; `None`: images are kept for ever."""

    def __init__(
        self, database: Database, wanted: Wanted, *, cache: Path, jobs: Path, keep: float | None, clock: Clock
    ) -> None:
        self._database = database
        self._wanted = wanted
        self._cache = cache
        self._jobs = jobs
        self._keep = keep
        self._clock = clock

    async def sweep(self) -> None:
        """Make one round. Raises what database and file system raise.

        It needs no fence: what is used is held by its jobs, and what a late leader removes is made anew.
        """
        now = self._clock.now()
        await asyncio.to_thread(_clear_forgotten, self._cache, now - FORGOTTEN)
        if self._keep is None:
            return
        used = await usage(self._database, self._wanted, self._jobs)
        verdicts = await asyncio.to_thread(sweep, self._cache, used, now=now, unused_for=self._keep)
        for verdict in verdicts:
            if verdict.removed:
                image = verdict.image
                log.info("cleared away an unused image", extra={"image": image.key, "bytes": image.size})


def _clear_forgotten(cache: Path, before: float) -> None:
    for folder in cache.glob("making/*"):
        with contextlib.suppress(OSError):  # its maker may be clearing it away itself
            if max(path.lstat().st_mtime for path in (folder, *folder.iterdir())) < before:
                shutil.rmtree(folder)
