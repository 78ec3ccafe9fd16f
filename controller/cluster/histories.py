"""What there is to learn from the jobs of the last days, by where and what they ran: kept in memory for one term.

The rows know of a launch its digest alone. Which placement that is the passes tell, which see its spec; what no pass of
this term has seen is left out.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from api.contract.launch import LaunchSpec
from controller.core.desired import Desired
from controller.core.lead import History, Measured, Way, measured
from controller.ports import Clock, Store

DAYS = 14
"""What is older says little of how full the cluster is."""
MOST = 200
"""Jobs of one kind that count: the newest."""


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a job may run: what makes two jobs wait in one line."""

    partition: str | None
    account: str | None
    qos: str | None
    constraint: str | None
    reservation: str | None
    gpus: str
    nodes: int

    @classmethod
    def of(cls, spec: LaunchSpec) -> Placement:
        """Return where jobs of a launch may run."""
        asked = spec.resources
        return cls(
            partition=asked.partition,
            account=asked.account,
            qos=asked.qos,
            constraint=asked.constraint,
            reservation=asked.reservation,
            gpus=asked.gres or f"{asked.gpu_type}:{asked.gpu}",
            nodes=asked.nodes,
        )


@dataclass(frozen=True, slots=True)
class Launched:
    """What a job launches, and where: what makes two jobs take the same time to start."""

    placement: Placement
    recipe: str
    model: str | None


class Histories:
    """What was measured, by kinds of jobs."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._ways: dict[str, list[Way]] = {}
        """By digest."""
        self._launched: dict[str, Launched] = {}
        """By digest."""
        self._alike: defaultdict[Placement | Launched, set[str]] = defaultdict(set)
        """The digests of a kind."""
        self._waits: dict[Placement, Measured] = {}
        self._startups: dict[Launched, Measured] = {}

    async def learn(self) -> None:
        """Read what there is to learn; raises what the database raises."""
        ways: defaultdict[str, list[Way]] = defaultdict(list)
        for digest, way in await self._store.ways(self._clock.now() - DAYS * 86400):
            ways[digest].append(way)
        self._ways = dict(ways)
        self._waits.clear()
        self._startups.clear()

    def of(self, desired: Desired) -> History:
        """Return what is known of jobs like those of a service; what came since the last reading is not yet."""
        if desired.spec is None:
            return History()
        launched = self._launched.get(desired.digest) or self._meet(desired.spec, desired.digest)
        placement = launched.placement
        if placement not in self._waits:
            self._waits[placement] = measured(way.wait for way in self._newest(placement))
        if launched not in self._startups:
            self._startups[launched] = measured(way.startup for way in self._newest(launched))
        return History(waits=self._waits[placement], startups=self._startups[launched])

    def _meet(self, spec: LaunchSpec, digest: str) -> Launched:
        launched = Launched(Placement.of(spec), spec.recipe, spec.model)
        self._launched[digest] = launched
        self._alike[launched].add(digest)
        self._alike[launched.placement].add(digest)
        return launched

    def _newest(self, kind: Placement | Launched) -> Sequence[Way]:
        found = [way for digest in self._alike[kind] & self._ways.keys() for way in self._ways[digest]]
        return sorted(found, key=lambda way: way.intent_at, reverse=True)[:MOST]
