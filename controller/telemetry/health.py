"""Is this controller well, and what that is known is out of date?"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy.exc import SQLAlchemyError

from api.contract import descriptors
from api.contract.database import Database, cause
from controller.lease import Leader, leader
from controller.runtime.leading import Leading

DATABASE_SECONDS = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ControllerHealth:
    """What /health answers. Ages in seconds."""

    status: str
    """healthy, standby (another one leads, and is heard of) or stale."""
    stale: tuple[str, ...]
    """What is out of date: database, heartbeat, snapshot."""
    leader: bool
    epoch: int | None
    last_heartbeat: float | None
    """Since whoever leads, or led last, renewed the lease."""
    snapshot_age: float | None
    reading_failure: str | None
    database: str
    unknown_tokens: int
    short_of: tuple[str, ...] = ()
    """What this process is running short of: descriptors."""


class Doctor:
    """Examines one controller."""

    def __init__(
        self,
        database: Database,
        now: Callable[[], float],
        leading: Callable[[], Leading | None],
        *,
        heartbeat_seconds: float,
        snapshot_seconds: float,
    ) -> None:
        self._database = database
        self._now = now
        self._leading = leading
        self._heartbeat_seconds = heartbeat_seconds
        self._snapshot_seconds = snapshot_seconds

    async def examine(self) -> ControllerHealth:
        """Tell how it is."""
        leading = self._leading()
        found, database = await self._ask_database()
        now = self._now()
        beat = max(0.0, now - found.renewed_at) if found is not None else None
        snapshot = leading.cluster.snapshots.latest if leading else None
        failure = leading.cluster.snapshots.failure if leading else None
        read_at = snapshot.began_at if snapshot else leading.term.began_at if leading else None
        known_for = max(0.0, leading.cluster.clock.now() - read_at) if leading and read_at is not None else 0.0
        stale = tuple(
            word
            for word, is_stale in (
                ("database", database != "ok"),
                ("heartbeat", database == "ok" and (beat is None or beat > self._heartbeat_seconds)),
                ("snapshot", known_for > self._snapshot_seconds),
            )
            if is_stale
        )
        return ControllerHealth(
            status="stale" if stale else "healthy" if leading else "standby",
            stale=stale,
            leader=leading is not None,
            epoch=found.epoch if found else None,
            last_heartbeat=_rounded(beat),
            snapshot_age=_rounded(known_for) if snapshot else None,
            reading_failure=failure.message if failure else None,
            database=database,
            unknown_tokens=len(leading.cluster.orphans.unknown) if leading else 0,
            short_of=("descriptors",) if descriptors.are_short() else (),
        )

    async def _ask_database(self) -> tuple[Leader | None, str]:
        try:
            async with asyncio.timeout(DATABASE_SECONDS):
                return await leader(self._database), "ok"
        except TimeoutError:
            return None, f"It did not answer within {DATABASE_SECONDS:g} s."
        except (SQLAlchemyError, OSError) as error:
            return None, cause(error)


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 1)
