"""One simulated controller: the project's own term, driven one boundary at a time."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from api.contract.settings import ControllerSettings
from controller.act import ActionExecutor
from controller.clock import TermClock
from controller.cluster.admission import Admission
from controller.cluster.cluster import Cluster
from controller.cluster.gateways import Gateways
from controller.cluster.pace import Pace
from controller.cluster.quotas import Quotas
from controller.cluster.rhythm import Rhythm
from controller.cluster.snapshots import SnapshotTaker
from controller.cluster.tracked_attempts import TrackedAttempts
from controller.core.jobs import Snapshot
from controller.core.limits import Limits
from controller.core.observed import Quota
from controller.core.script import Site
from controller.lease import HeldLease, Lease
from controller.ports import Clock, ClusterPorts, DeposedError, Term
from controller.queue import KeyedQueue
from controller.reconciler import Reconciler
from controller.report import Pass
from controller.runtime.held_term import HeldTerm
from controller.runtime.leading import LEARNING_SECONDS, Leading
from controller.runtime.reader import ClusterReader
from controller.runtime.waker import Waker
from controller.runtime.workers import Workers
from tests.simulation.adapters import Boundary, SimClock, SimKeys, SimProbes, SimRunDirs, SimScheduler, SimStore
from tests.simulation.traffic import LIVES

if TYPE_CHECKING:
    from tests.simulation.world import World

LEASE = 15.0
SETTINGS = ControllerSettings(lease=LEASE, workers=2)
LIMITS = Limits(doubt_grace=120.0, drain_settles=3.0, drain_hears=10.0, drain_most=20.0)
Value = TypeVar("Value")
SITE = Site(apptainer="apptainer", image_cache="/images", port_range=None, volumes="/v", python="python3")


class Unwitnessed:
    """Nobody counts."""

    @staticmethod
    def passing() -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()

    @staticmethod
    def has_read(*, well: bool) -> None: ...


class SimLeaseRecords:
    """The lease, on a database that is busy at times."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def take(self, holder: str, now: float, is_free: Callable[[HeldLease], bool]) -> int | None:
        await Boundary("before take")
        self._world.check_database()
        epoch = await self._world.database.lease_records.take(holder, now, is_free)
        self._world.newest_epoch = epoch or self._world.newest_epoch
        await Boundary("after take")
        self._world.maybe_lose_the_answer()
        return epoch

    async def renew(self, term: Term, now: float) -> None:
        await Boundary("renew")
        self._world.check_database()
        await self._world.database.lease_records.renew(term, now)
        self._world.maybe_lose_the_answer()

    async def release(self, term: Term) -> None:
        await self._world.database.lease_records.release(term)


def ended(work: Coroutine[Any, Any, Value]) -> Value:
    """Run a coroutine that never waits to its end."""
    try:
        work.send(None)
    except StopIteration as stop:
        value: Value = stop.value
        return value
    raise AssertionError("it waits")


class WatchedSnapshots(SnapshotTaker):
    """The project's own, of whose snapshots the world knows when they were listed."""

    def __init__(self, scheduler: SimScheduler, tracked: Any, clock: Clock) -> None:
        super().__init__(scheduler, tracked, clock)
        self._sim = scheduler
        self._listed: dict[int, int] = {}

    async def take(self) -> Snapshot:
        snapshot = await super().take()
        self._listed[snapshot.sequence] = self._sim.listed
        return snapshot

    def judge(self, world: World) -> Callable[[Pass], None]:
        """Return what has the world judge each pass."""

        def judge(done: Pass) -> None:
            if done.seen.snapshot is not None:
                world.judge_told(done)
                world.judge_absence(done, self._listed[done.seen.snapshot.sequence], self._sim.returned)

        return judge


@dataclass
class Thread:
    """A coroutine between two of its boundaries."""

    kind: str
    work: Coroutine[Boundary, None, None]
    at: str = ""
    """The boundary it stands at."""


class SimController:
    """A daemon that can be paused, deposed and killed at every boundary."""

    def __init__(self, world: World, name: str) -> None:
        self._world = world
        self._name = name
        self.alive = True
        self.reborn_at = 0.0
        self.paused_until = 0.0
        self.trap: tuple[str, str] | None = None
        """The boundary at which it is to be killed or paused when it next comes there."""
        self.waits = ""
        """The kind of its threads that gets no processor."""
        self.clock_offset = 0.0
        """By how much the clock of its host is wrong; its monotonic clock knows nothing of that."""
        self._boot()

    def _boot(self) -> None:
        self._clock = SimClock(self._world, self)
        self._lease = Lease(
            SimLeaseRecords(self._world), self._clock, LEASE, holder=self._name, monotonic=lambda: self._world.now
        )
        self._leading: Leading | None = None
        self.threads: list[Thread] = []
        self._next: dict[str, float] = {}
        self._position, self._edits = 0, -1

    def crash(self, reborn_at: float) -> None:
        """Die as by SIGKILL: what was between two boundaries never happens."""
        for thread in self.threads:
            self._world.reach(f"crash {thread.at}")
            thread.work.close()
        self.alive, self.reborn_at = False, reborn_at
        self._boot()

    def pause(self, until: float) -> None:
        """Be stopped as by SIGSTOP."""
        self.paused_until = until
        for thread in self.threads:
            self._world.reach(f"pause {thread.at}")

    @property
    def leads(self) -> bool:
        """Whether it believes that it leads."""
        return self._leading is not None

    @property
    def snapshot(self) -> Snapshot | None:
        """Its newest reading of the cluster."""
        return self._leading.cluster.snapshots.latest if self._leading is not None else None

    def is_free_to_run(self) -> bool:
        """Whether the driver may let it take a step now."""
        if not self.alive and self._world.now >= self.reborn_at:
            self.alive = True
        return self.alive and self._world.now >= self.paused_until

    def step(self) -> None:
        """Begin something that is due, or go on with something that has begun."""
        self._begin_what_is_due()
        ready = [thread for thread in self.threads if thread.kind != self.waits]
        if not ready:
            return
        thread = self._world.rng.choice(ready)
        if self._leading is not None and self._leading.term.epoch != self._world.newest_epoch:
            self._world.reach(f"deposed, went on {thread.at}")
        try:
            thread.at = thread.work.send(None).name
            self._world.reach(thread.at)
            self._spring_the_trap(thread.at)
        except StopIteration:
            self._finish(thread)
        except DeposedError:
            self._finish(thread)
            self._depose()
        except (OSError, RuntimeError):
            self._finish(thread)  # a periodic work's failure is logged; the next run comes all the same

    def _spring_the_trap(self, at: str) -> None:
        if self.trap is None or self.trap[0] != at or self._world.calm:
            return
        how, self.trap = self.trap[1], None
        seconds = self._world.rng.choice((0.5, 2 * LEASE, 4 * LEASE))
        self._world.reach(f"trap: {how}")
        if how == "crash":
            self.crash(self._world.now + seconds)
        else:
            self.pause(self._world.now + seconds)

    def _finish(self, thread: Thread) -> None:
        if thread in self.threads:
            self.threads.remove(thread)

    def _depose(self) -> None:
        """Throw everything of the term away, but what is under way may still take its next step."""
        self._leading = None
        for thread in self.threads:
            thread.work.close()
        self.threads = []

    def _begin_what_is_due(self) -> None:
        leading = self._leading
        if leading is None:
            if self._due("acquire", 1.0) and not self._busy("acquire"):
                self._begin("acquire", self._acquire())
            return
        if leading.held.lost.is_set():
            self._depose()
            return
        if self._due("renew", LEASE / 3) and not self._busy("renew"):
            self._begin("renew", leading.held.renew())
        if self._due("read", SETTINGS.fastest_reading) and not self._busy("read"):
            self._begin("read", leading.reader.read_when_due())
        if self._due("resync", SETTINGS.resync) and not self._busy("resync"):
            self._begin("resync", leading.waker.wake_all())
        if self._due("learn", LEARNING_SECONDS) and not self._busy("learn"):
            self._begin("learn", leading.learn())
        if self._due("probe", 2.0):
            leading.queue.add_all(self._probes.probe_all())
        self._follow_changes(leading)
        while (
            sum(t.kind == "pass" for t in self.threads) < SETTINGS.workers and (key := leading.queue.take()) is not None
        ):
            self._begin("pass", leading.workers.work(key))

    def _follow_changes(self, leading: Leading) -> None:
        edits = self._world.database.edits
        if edits == self._edits:
            return
        try:
            self._position, keys = ended(self._store.changed(self._position))
        except OSError:
            return
        self._edits = edits
        leading.queue.add_all(keys)

    def _due(self, what: str, every: float) -> bool:
        if self._world.now < self._next.get(what, 0.0):
            return False
        self._next[what] = self._world.now + every
        return True

    def _busy(self, kind: str) -> bool:
        return any(t.kind == kind for t in self.threads)

    def _begin(self, kind: str, work: Coroutine[Any, Any, None]) -> None:
        self.threads.append(Thread(kind, work))

    async def _acquire(self) -> None:
        term = await self._lease.acquire()
        if term is None:
            return
        world, clock = self._world, TermClock(term.began_at, self._clock.now, lambda: self._world.now)
        world.reach("term")
        store, scheduler = SimStore(world), SimScheduler(world, self)
        self._probes = SimProbes(world, clock)
        ports = ClusterPorts(scheduler=scheduler, run_dirs=SimRunDirs(world), probes=self._probes)
        tracked, queue = TrackedAttempts(await store.tracked()), KeyedQueue(clock.now, world.rng.random)
        quotas = Quotas(Quota(gpus=world.plan.gpus), tracked, clock, world.no_hours, queue.add)
        cluster = Cluster(
            ports,
            store=store,
            tracked=tracked,
            admission=Admission(Pace(clock, burst=2, per_second=1.0), quotas),
            rhythm=Rhythm(SETTINGS.fastest_reading, SETTINGS.slowest_reading),
            clock=clock,
        )
        cluster.gateways = Gateways(store, lambda: world.now, lives=LIVES)
        cluster.snapshots = snapshots = WatchedSnapshots(scheduler, tracked.all, clock)
        executor = ActionExecutor(
            cluster=cluster,
            store=store,
            clock=clock,
            site=SITE,
            keys=SimKeys(),
            may_act=self._lease.holds,
        )
        reconciler = Reconciler(
            term=term,
            store=store,
            cluster=cluster,
            executor=executor,
            clock=clock,
            limits=LIMITS,
            report=snapshots.judge(world),
        )
        self._next.clear()
        self._position, self._edits = 0, -1
        self._store = store
        held, waker = HeldTerm(term, self._lease), Waker(store, queue)
        self._leading = Leading(
            held,
            cluster=cluster,
            reader=ClusterReader(term, cluster, waker, Unwitnessed()),
            workers=Workers(held, reconciler, queue, Unwitnessed()),
            waker=waker,
            sweeps=(),
            settings=SETTINGS,
        )
