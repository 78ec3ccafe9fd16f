"""build(installation): the daemon, and the one file that picks what leads a term."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable

from sqlalchemy.exc import SQLAlchemyError

from api.contract.database import cause
from api.contract.descriptors import limit
from api.contract.doors import Doors
from controller import failpoints
from controller.act import ActionExecutor
from controller.clock import SystemClock, TermClock
from controller.cluster.cluster import Cluster
from controller.cluster.probes import HttpProbes
from controller.images.jobs import ImageJobs
from controller.images.retention import ImageRetention
from controller.installation import Installation
from controller.lease import Lease, SqlLeaseRecords
from controller.ports import Clock, Term
from controller.queue import KeyedQueue
from controller.reconciler import Reconciler
from controller.report import Pass, report
from controller.retention import Retention
from controller.runtime.held_term import HeldTerm
from controller.runtime.leading import Leading, Sweep
from controller.runtime.reader import ClusterReader
from controller.runtime.waker import Waker
from controller.runtime.workers import Workers
from controller.site import limits, site
from controller.telemetry.health import Doctor
from controller.telemetry.metrics import Metrics
from controller.telemetry.plans import PlanLog
from controller.telemetry.server import serving
from controller.untaken import UntakenParameters

log = logging.getLogger(__name__)

STANDBY_SECONDS = 1.0


class Controller:
    """The daemon: stands by until it holds the lease, then leads, term after term, until it is told to end."""

    def __init__(self, installation: Installation) -> None:
        settings = installation.settings
        self._installation = installation
        self._settings = settings
        self._clock = SystemClock()
        self._keyring = installation.keyring()
        self._keyring.load()
        self._doors = Doors(self._keyring, "controller")
        self._image_jobs = ImageJobs(settings, installation.runner) if settings.images.build == "job" else None
        self._lease = Lease(SqlLeaseRecords(installation.database), self._clock, settings.controller.lease)
        self._leading: Leading | None = None
        self._metrics = Metrics(lambda: self._leading, installation.runner.calls)
        self._reports: list[Callable[[Pass], None]] = [report, self._metrics.report]
        if settings.controller.plan_log:
            self._reports.append(PlanLog(settings.state_dir, settings.controller.plan_log).report)

    async def run(self, ending: asyncio.Event) -> None:
        """Run until `ending` is set; raises `PortError`."""
        async with self._telling():
            await self._run(ending)

    async def _run(self, ending: asyncio.Event) -> None:
        told = False
        while not ending.is_set():
            term = await self._acquire()
            if term is None:
                if not told:
                    log.info("standing by, another controller holds the lease")
                told = True
                await _pause(ending, STANDBY_SECONDS)
                continue
            told = False
            await self._lead(term, ending)

    async def _acquire(self) -> Term | None:
        try:
            return await self._lease.acquire()
        except (SQLAlchemyError, OSError) as error:
            log.warning("the database can't be used", extra={"error": cause(error)})
            return None

    async def _lead(self, term: Term, ending: asyncio.Event) -> None:
        """Build all that belongs to one term, lead, and give the lease up."""
        held, clock = HeldTerm(term, self._lease), TermClock(term.began_at)
        queue = KeyedQueue(clock.now)
        run_dirs, most = self._installation.run_dirs, self._watches()
        probes = HttpProbes(clock, self._doors, queue.add, run_dirs, ended=self._look_at_once, watches=most)
        try:
            self._metrics.new_term()
            cluster = await self._installation.cluster(clock, probes, queue.add, self._image_jobs)
            self._leading = self._begin(held, cluster, queue)
            await self._leading.lead(ending)
        except (SQLAlchemyError, OSError) as error:
            about = {"epoch": term.epoch, "error": cause(error)}
            log.warning("the term ended early, the database can't be used", extra=about)
            await _pause(ending, STANDBY_SECONDS)
        finally:
            self._leading = None
            await probes.close()
        await held.give_up()

    def _watches(self) -> int:
        """Return how many doors may be watched: the rest of the descriptors is for all else."""
        return min(self._settings.controller.watches, limit() // 2)

    def _look_at_once(self) -> None:
        if self._leading is not None:
            self._leading.cluster.ends.set()

    def _begin(self, held: HeldTerm, cluster: Cluster, queue: KeyedQueue) -> Leading:
        term, clock, store, settings = held.term, cluster.clock, self._installation.store, self._settings
        executor = ActionExecutor(
            cluster=cluster,
            store=store,
            clock=clock,
            site=site(settings),
            keys=self._keyring,
            may_act=self._lease.holds,
        )
        reconciler = Reconciler(
            term=term,
            store=store,
            cluster=cluster,
            executor=executor,
            clock=clock,
            limits=limits(settings),
            report=self._report,
        )
        waker = Waker(store, queue)
        return Leading(
            held,
            cluster=cluster,
            reader=ClusterReader(term, cluster, waker, self._metrics),
            workers=Workers(held, reconciler, queue, self._metrics),
            waker=waker,
            sweeps=self._sweeps(term, clock),
            settings=settings.controller,
        )

    def _sweeps(self, term: Term, clock: Clock) -> tuple[Sweep, ...]:
        """Return what clears away what is over: keys, rows with their job folders, unless all are kept, then images."""
        retention, images = self._retention(term, clock), self._images(clock)
        untaken = UntakenParameters(self._installation.database, self._installation.jobs)
        return (untaken.sweep, *((retention.sweep,) if retention is not None else ()), lambda _: images.sweep())

    def _retention(self, term: Term, clock: Clock) -> Retention | None:
        settings = self._settings
        if not settings.controller.keep_days:
            return None
        keep = settings.controller.keep_days * 86400
        counted = settings.quota.gpu_hours > 0 or settings.quota.gpu_hours_per_service > 0
        own = self._installation
        return Retention(term, own.database, own.jobs, keep, clock, keep_month=counted)

    def _images(self, clock: Clock) -> ImageRetention:
        settings, own = self._settings, self._installation
        return ImageRetention(
            own.database,
            own.wanted,
            cache=settings.run_dir / "images",
            jobs=own.jobs,
            keep=settings.images.keep_days * 86400 or None,
            clock=clock,
        )

    def _report(self, done: Pass) -> None:
        for tell in self._reports:
            tell(done)

    @contextlib.asynccontextmanager
    async def _telling(self) -> AsyncIterator[None]:
        """Answer for metrics and health, where that is wanted."""
        settings = self._settings.controller
        if not settings.metrics_port:
            yield
            return
        doctor = Doctor(
            self._installation.database,
            self._clock.now,
            lambda: self._leading,
            heartbeat_seconds=settings.lease,
            # The longest pause between two readings, twice, and the longest that one of them may take.
            snapshot_seconds=2 * settings.slowest_reading + self._settings.slurm.command_timeout,
        )
        async with serving(settings.metrics_host, settings.metrics_port, self._metrics, doctor) as port:
            log.info("listening", extra={"host": settings.metrics_host, "port": port})
            yield


def build(installation: Installation) -> Controller:
    """Build the controller of an installation. Raises `KeyFileError`, and `ValueError` for an unknown failpoint."""
    failpoints.arm(installation.settings.controller.failpoint)
    return Controller(installation)


async def _pause(ending: asyncio.Event, seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await ending.wait()
