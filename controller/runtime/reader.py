"""Reads one cluster when that is due, and wakes the services whose jobs changed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection

from controller.cluster.cluster import Cluster
from controller.core.jobs import Snapshot
from controller.ports import Term, Tracked, UnreadableError, Witness
from controller.runtime.waker import Waker

log = logging.getLogger(__name__)

AFTER_ENDS = (0.2, 0.8)
"""Seconds: when engines have ended the cluster is read so long after, and again: the job ends a moment later."""


class ClusterReader:
    """Takes a cluster's snapshots in its rhythm."""

    def __init__(self, term: Term, cluster: Cluster, waker: Waker, witness: Witness) -> None:
        self._term = term
        self._cluster = cluster
        self._waker = waker
        self._witness = witness
        self._reading = asyncio.Lock()

    async def read_when_due(self) -> None:
        """Read the cluster if its rhythm says so, and wake what changed."""
        cluster = self._cluster
        if cluster.rhythm.is_due(cluster.clock.now(), changing=cluster.tracked.is_changing):
            await self._read()

    async def read_after_ends(self) -> None:
        """Read the cluster out of turn whenever engines have ended; a thousand ends cause as many readings as one."""
        while await self._cluster.ends.wait():
            for pause in AFTER_ENDS:
                await asyncio.sleep(pause)
                self._cluster.ends.clear()
                self._cluster.rhythm.read_now(self._cluster.clock.now())
                try:
                    await self._read()
                except Exception:
                    log.exception("the cluster could not be read out of turn")

    async def _read(self) -> None:
        async with self._reading:
            await self._read_alone()

    async def _read_alone(self) -> None:
        cluster, snapshots = self._cluster, self._cluster.snapshots
        before, was_silent = snapshots.latest, snapshots.failure is not None
        try:
            snapshot = await snapshots.take()
        except UnreadableError as error:
            self._witness.has_read(well=False)
            await self._tell_silence(error, was_silent=was_silent)
            return
        self._witness.has_read(well=True)
        if was_silent or before is None:
            log.info("the cluster answers")
            await self._waker.wake_all()
        self._wake(changed_tokens(before, snapshot, cluster.tracked.all()))
        await cluster.orphans.sweep(self._term, snapshot)

    async def _tell_silence(self, error: UnreadableError, *, was_silent: bool) -> None:
        if not was_silent:
            log.warning("the cluster can't be read", extra={"reason": error.reason, "error": error.message})
            await self._waker.wake_all()

    def _wake(self, tokens: set[str]) -> None:
        if tokens:
            self._cluster.rhythm.hurry()
        self._waker.wake_owners(tokens)


def changed_tokens(before: Snapshot | None, after: Snapshot, tracked: Collection[Tracked]) -> set[str]:
    """Return the tokens whose jobs changed between two snapshots, those that are missed, and those being ended.

    Those that wait for a maintenance have changed with it.
    A token that is not tracked counts too: the end of an orphan may be what its replica waits for.
    """
    jobs = before.jobs if before is not None else {}
    changed = {token for token in jobs.keys() | after.jobs.keys() if jobs.get(token) != after.jobs.get(token)}
    if before is not None and before.maintenances != after.maintenances:
        changed |= {token for token, listed in after.jobs.items() if any(job.awaits_maintenance for job in listed)}
    return changed | {t.token for t in tracked if not t.open or t.token not in after.jobs}
