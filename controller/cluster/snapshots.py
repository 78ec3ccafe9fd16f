"""Snapshots of the cluster: one reading for all, with as few commands as will do."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from api.contract.job.token import Token
from controller.cluster.maintenances import Maintenances
from controller.cluster.readings import (
    Vanished,
    build_snapshot,
    find_vanished,
    known_as_ended,
    nodes_of_running,
    placements,
    tokens_by_service,
    with_leaving_nodes,
)
from controller.core.jobs import Job, ReadingFailure, Snapshot
from controller.ports import Clock, Scheduler, Tracked, UnreadableError

ASK_AGAIN_FIRST = 2.0
ASK_AGAIN_MOST = 60.0
"""Seconds until accounting is asked again about a job that it did not know, doubling from the first to the most."""

WITHOUT_ACCOUNTING = 600.0
"""Seconds until a site that has no accounting is asked again whether it has."""

HIDDEN_AGAIN = 600.0
"""Seconds until a site that hides its nodes (PrivateData) is asked for their addresses and states again."""

NODES_AGAIN = 30.0
"""Seconds between two looks at the states of the nodes that jobs run on."""

log = logging.getLogger(__name__)


class SnapshotTaker:
    """Takes snapshots, one at a time, and keeps the latest and the latest failure.

    A take costs one squeue; one sacct more if jobs vanished that it has not been asked about lately; one sinfo more
    if a job got a node since the last one (an address may change each time a cloud node boots), and one for the states
    of the nodes on which jobs run, every `NODES_AGAIN`; one scontrol if a job waits for a maintenance.
    """

    def __init__(self, scheduler: Scheduler, tracked: Callable[[], Collection[Tracked]], clock: Clock) -> None:
        self._scheduler = scheduler
        self._tracked = tracked
        self._clock = clock
        self._maintenances = Maintenances(scheduler, clock)
        self._accounting = _Accounting()
        self._accounting_trouble = ""
        self._addresses: Mapping[str, str] = {}
        self._addresses_again_at = float("-inf")
        self._leaving: Mapping[str, str] = {}
        self._leaving_again_at = float("-inf")
        self._placed: frozenset[tuple[int, str]] | None = None
        self._sorted_out: tuple[Snapshot, Mapping[str, Sequence[Token]]] | None = None
        self.latest: Snapshot | None = None
        """`None` until the first successful reading."""
        self.failure: ReadingFailure | None = None
        """Set while the newest readings failed."""

    async def take(self) -> Snapshot:
        """Read the cluster once. Raises UnreadableError, after noting it, if squeue does not answer."""
        sequence = self._scheduler.next_sequence()
        began_at = self._clock.now()
        tracked = self._tracked()  # before the listing: what is noted later can't be missed in it
        try:
            listing = await self._scheduler.list_jobs()
        except UnreadableError as error:
            self.failure = _failed(self.failure, error, began_at)
            raise
        self.failure = None
        vanished = find_vanished(listing, tracked)
        await self._ask_accounting(vanished)
        await self._ask_addresses(listing.jobs)
        await self._ask_leaving(listing.jobs)
        found = build_snapshot(
            sequence=sequence,
            began_at=began_at,
            listing=with_leaving_nodes(listing, self._leaving),
            tracked=tracked,
            vanished=vanished,
            ended=self._accounting.ended,
            addresses=self._addresses,
        )
        ahead = await self._maintenances.ahead(listing.jobs)
        self.latest = replace(found, accounting_trouble=self._accounting_trouble, maintenances=ahead)
        return self.latest

    def tokens_of(self, service_id: str) -> Sequence[Token]:
        """Return the tokens of one service in the latest snapshot. They are sorted out once, when first asked for."""
        if self.latest is None:
            return ()
        if self._sorted_out is None or self._sorted_out[0] is not self.latest:
            self._sorted_out = self.latest, tokens_by_service(self.latest)
        return self._sorted_out[1].get(service_id, ())

    async def _ask_accounting(self, vanished: frozenset[Vanished]) -> None:
        now = self._clock.now()
        due = self._accounting.due(vanished, now)
        if not due:
            return
        try:
            answers = await self._scheduler.ended_jobs({each.job_id for each in due})
        except UnreadableError as error:
            self._accounting_trouble = error.message
            answers = {}
        else:
            self._accounting_trouble = ""
        self._accounting.note(due, answers, now)

    async def _ask_addresses(self, jobs: Collection[Job]) -> None:
        placed = placements(jobs)
        if self._placed is not None and placed <= self._placed:
            self._placed = placed
            return
        now = self._clock.now()
        if now < self._addresses_again_at:
            return
        try:
            self._addresses = await self._scheduler.addresses()
        except UnreadableError as error:
            # the old ones stand; of nodes without one the name is taken
            if error.reason == "PermissionDenied":
                self._addresses_again_at = now + HIDDEN_AGAIN
                log.warning(
                    "the site hides its nodes' addresses: they are called by name", extra={"said": error.message}
                )
            return
        self._placed = placed

    async def _ask_leaving(self, jobs: Collection[Job]) -> None:
        """Ask which of the nodes on which jobs run are being taken out of service."""
        nodes, now = nodes_of_running(jobs), self._clock.now()
        if not nodes:
            self._leaving = {}
            return
        if now < self._leaving_again_at:
            return
        try:
            self._leaving, pause = await self._scheduler.leaving(nodes), NODES_AGAIN
        except UnreadableError as error:  # what was known stands
            pause = HIDDEN_AGAIN if error.reason == "PermissionDenied" else NODES_AGAIN
        self._leaving_again_at = now + pause


def _failed(before: ReadingFailure | None, error: UnreadableError, began_at: float) -> ReadingFailure:
    """Return a failure, which lasts since the first reading that met it began: a command may try for long itself."""
    return ReadingFailure(since=before.since if before else began_at, reason=error.reason, message=error.message)


@dataclass(slots=True)
class _Asked:
    again_at: float
    pause: float


class _Accounting:
    """What accounting has said about vanished jobs, and when to ask about the others again."""

    def __init__(self) -> None:
        self.ended: dict[Vanished, Job] = {}
        self._asked: dict[Vanished, _Asked] = {}
        self._absent_until = float("-inf")

    def due(self, vanished: frozenset[Vanished], now: float) -> frozenset[Vanished]:
        """Return what to ask about now, and forget what is no longer vanished."""
        self.ended = {each: job for each, job in self.ended.items() if each in vanished}
        self._asked = {each: asked for each, asked in self._asked.items() if each in vanished}
        if now < self._absent_until:
            return frozenset()
        unknown = vanished - self.ended.keys()
        return frozenset(each for each in unknown if each not in self._asked or self._asked[each].again_at <= now)

    def note(self, asked: frozenset[Vanished], answers: Mapping[int, Job] | None, now: float) -> None:
        """Keep what is known for good; put off what is not."""
        if answers is None:
            self._absent_until = now + WITHOUT_ACCOUNTING
            return
        self.ended.update(known_as_ended(asked, answers))
        for each in asked - self.ended.keys():
            before = self._asked.get(each)
            pause = min(2 * before.pause, ASK_AGAIN_MOST) if before else ASK_AGAIN_FIRST
            self._asked[each] = _Asked(again_at=now + pause, pause=pause)
