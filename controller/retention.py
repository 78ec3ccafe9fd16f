"""Clears away what is old: events, attempts that are gone, deleted services, and the folders of jobs nobody knows.

The newest attempt of each replica stays: it says how often the replica failed, and which number comes next.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from sqlalchemy import ColumnElement, Connection, delete, exists, select, update
from sqlalchemy.orm import InstrumentedAttribute, aliased

from api.contract.database import Database
from api.contract.job.folder import is_slot
from api.contract.tables import AttemptRow, EventRow, Service, UserEvent
from controller.cluster.quotas import month_of
from controller.core.jobs import Snapshot
from controller.lease import fence
from controller.ports import Clock, Term

log = logging.getLogger(__name__)

AT_ONCE = 500
"""Rows of one transaction: other writers wait for no more than that."""

_newer = aliased(AttemptRow)


class Retention:
    """Clears away, under one term, what has been over for so many seconds."""

    def __init__(
        self,
        term: Term,
        database: Database,
        jobs: Path,
        keep: float,
        clock: Clock,
        *,
        keep_month: bool = False,
    ) -> None:
        """`keep` in seconds; `keep_month`: what belongs to this calendar month is kept at any rate."""
        self._term = term
        self._database = database
        self._jobs = jobs
        self._keep = keep
        self._clock = clock
        self._keep_month = keep_month

    async def sweep(self, snapshot: Snapshot | None) -> None:
        """Make one round. Raises `DeposedError`, and what database and file system raise."""
        now = self._clock.now()
        before = min(now - self._keep, month_of(now) if self._keep_month else now)
        counts = {
            "events": await self._clear(EventRow.id, EventRow.last_at < before),
            "user_events": await self._clear(UserEvent.id, UserEvent.at < before),
            "attempts": await self._clear(AttemptRow.token, AttemptRow.gone_at < before, _is_not_newest()),
            "services": await self._clear(Service.id, Service.deletion_requested_at < before, _has_left_nothing()),
        }
        if snapshot is not None:
            counts["folders"] = await self._clear_folders(snapshot, before)
        if any(counts.values()):
            log.info("cleared away what is old", extra=counts)

    async def _clear(self, key: InstrumentedAttribute[Any], *which: ColumnElement[bool]) -> int:
        """Delete rows, a few at a time; return how many."""
        count = 0
        while True:
            async with self._database.write() as connection:
                await fence(connection, self._term)
                found = (await connection.execute(select(key).where(*which).limit(AT_ONCE))).scalars().all()
                if key is Service.id:  # else a DELETE leaves a tombstone
                    await connection.execute(update(Service).where(Service.id.in_(found)).values(purge=1))
                await connection.execute(delete(key.class_).where(key.in_(found)))
            count += len(found)
            if len(found) < AT_ONCE:
                return count

    async def _clear_folders(self, snapshot: Snapshot, before: float) -> int:
        """Remove the job folders of tokens that neither the database nor the cluster knows any more."""
        old = await asyncio.to_thread(lambda: list(_untouched_since(self._jobs, before)))
        known = await among(self._database, [folder.name for folder in old])
        left = [folder for folder in old if folder.name not in known and folder.name not in snapshot.jobs]
        for folder in left:
            await asyncio.to_thread(_remove, folder)
        return len(left)


async def among(database: Database, tokens: Collection[str], *which: ColumnElement[bool]) -> set[str]:
    """Return those of the tokens whose attempts the database knows, and which are such ones."""
    ordered = sorted(tokens)

    def find(connection: Connection) -> set[str]:
        found: set[str] = set()
        for start in range(0, len(ordered), AT_ONCE):
            query = select(AttemptRow.token).where(AttemptRow.token.in_(ordered[start : start + AT_ONCE]), *which)
            found.update(connection.execute(query).scalars())
        return found

    return await database.read(find)


def _is_not_newest() -> ColumnElement[bool]:
    """Incarnations are numbered on from the newest of a replica, and its back-off goes by the newest of each lane."""
    of_replica = (_newer.service_id == AttemptRow.service_id, _newer.replica == AttemptRow.replica)
    same = (*of_replica, _newer.lane == AttemptRow.lane)
    return exists().where(*same, _newer.incarnation > AttemptRow.incarnation)


def _has_left_nothing() -> ColumnElement[bool]:
    return ~exists().where(AttemptRow.service_id == Service.id, AttemptRow.gone_at.is_(None))


def _untouched_since(jobs: Path, before: float) -> Iterator[Path]:
    """Yield the folders of jobs in which nothing was written since then."""
    for folder in jobs.glob("*/*"):
        if (
            folder.is_dir()
            and not is_slot(folder)
            and max(path.lstat().st_mtime for path in (folder, *folder.iterdir())) < before
        ):
            yield folder


def _remove(folder: Path) -> None:
    """Remove it, and its service's folder with the last one: slots are for jobs that live."""
    shutil.rmtree(folder)
    if all(map(is_slot, folder.parent.iterdir())):
        shutil.rmtree(folder.parent)
