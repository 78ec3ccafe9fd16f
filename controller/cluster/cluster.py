"""One cluster under one term, as one object: several clusters are several of them."""

from __future__ import annotations

import asyncio

from controller.cluster.admission import Admission
from controller.cluster.gateways import Gateways
from controller.cluster.histories import Histories
from controller.cluster.node_records import NodeRecords
from controller.cluster.orphans import Orphans
from controller.cluster.rhythm import Rhythm
from controller.cluster.sends import Sends
from controller.cluster.snapshots import SnapshotTaker
from controller.cluster.tracked_attempts import TrackedAttempts
from controller.ports import Clock, ClusterPorts, Store


class Cluster:
    """The ways to a cluster, and all that is remembered of it in a term."""

    def __init__(
        self,
        ports: ClusterPorts,
        *,
        store: Store,
        tracked: TrackedAttempts,
        admission: Admission,
        rhythm: Rhythm,
        clock: Clock,
    ) -> None:
        self.run_dirs = ports.run_dirs
        self.probes = ports.probes
        self.images = ports.images
        self.tracked = tracked
        self.admission = admission
        self.rhythm = rhythm
        self.clock = clock
        self.ends = asyncio.Event()
        """Set when engines may have ended: it is worth a look."""
        self.snapshots = SnapshotTaker(ports.scheduler, tracked.all, clock)
        self.gateways = Gateways(store)
        self.orphans = Orphans(tracked, store, ports.scheduler)
        self.sends = Sends(ports.scheduler, clock)
        self.histories = Histories(store, clock)
        self.node_records = NodeRecords(store, clock)

    def forget(self, token: str) -> None:
        """Forget an attempt that is gone."""
        self.probes.forget(token)
        self.sends.forget(token)
