"""Clears away what no job will take any more: the parameters of attempts that are gone, which hold a key.

An attempt's are cleared as soon as it is gone; this is for where the controller was cut short just then.
"""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

from api.contract.database import Database
from api.contract.job.folder import PARAMETERS
from api.contract.tables import AttemptRow
from controller.core.jobs import Snapshot
from controller.retention import among

log = logging.getLogger(__name__)


class UntakenParameters:
    """Looks through all job folders: a job removes what it has taken, so there are few."""

    def __init__(self, database: Database, jobs: Path) -> None:
        self._database = database
        self._jobs = jobs

    async def sweep(self, _: Snapshot | None) -> None:
        """Make one round. Raises what database and file system raise."""
        left = {path.parent.name: path for path in await asyncio.to_thread(self._left)}
        gone = await among(self._database, left, AttemptRow.gone_at.is_not(None))
        for token in gone:
            await asyncio.to_thread(left[token].unlink, missing_ok=True)
        if gone:
            log.info("cleared away parameters that no job had taken", extra={"count": len(gone)})

    def _left(self) -> list[Path]:
        return list(self._jobs.glob(f"*/*/{PARAMETERS}"))
