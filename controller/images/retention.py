"""The controller's part: images that nothing has used for days are cleared away."""

from __future__ import annotations

import asyncio
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
"""Seconds after which the folder of a maker whose command was killed is nobody's; its job may have waited for long."""


class ImageRetention:
    """Clears the cache of what has been unused for so many seconds."""

    def __init__(
        self, database: Database, wanted: Wanted, *, cache: Path, jobs: Path, keep: float, clock: Clock
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
        used = await usage(self._database, self._wanted, self._jobs)
        verdicts = await asyncio.to_thread(sweep, self._cache, used, now=now, unused_for=self._keep)
        for verdict in verdicts:
            if verdict.removed:
                image = verdict.image
                log.info("cleared away an unused image", extra={"image": image.key, "bytes": image.size})
        await asyncio.to_thread(_clear_forgotten, self._cache, now - FORGOTTEN)


def _clear_forgotten(cache: Path, before: float) -> None:
    for folder in cache.glob("making/*"):
        if max(path.lstat().st_mtime for path in (folder, *folder.iterdir())) < before:
            shutil.rmtree(folder)
