"""build(settings): the one file that picks the adapters."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable

from sqlalchemy.exc import SQLAlchemyError

from api.contract.database import Database, cause
from api.contract.feed import wakeups
from api.contract.identity import load_key, prefix, secret
from api.contract.recipes.book import Library
from api.contract.settings import Settings
from controller import failpoints
from controller.act import Actor
from controller.clock import SystemClock, TermClock
from controller.images.jobs import ImageJobs
from controller.images.retention import ImageRetention
from controller.lease import Lease, SqlLeaseRecords
from controller.pace import Pace
from controller.ports import DeposedError, Term
from controller.probe import HttpProbes
from controller.quotas import Quotas
from controller.reconciler import Reconciler
from controller.report import Pass, report
from controller.retention import Retention
from controller.roster import Roster
from controller.rundir import SharedRunDirs
from controller.runtime.leading import Leading
from controller.runtime.queue import KeyedQueue
from controller.runtime.rhythm import Rhythm
from controller.site import ceilings, limits, site
from controller.slurm.keeper import SnapshotKeeper
from controller.slurm.runner import ProcessRunner
from controller.slurm.scheduler import SlurmScheduler
from controller.store import SqlStore, installation_id
from controller.strays import Strays
from controller.telemetry.health import Doctor
from controller.telemetry.metrics import Metrics
from controller.telemetry.plans import PlanLog
from controller.telemetry.server import serving
from controller.usage import gpu_hours
from controller.wanted import Wanted

log = logging.getLogger(__name__)

STANDBY_SECONDS = 1.0


class Controller:
    """The daemon: stands by until it holds the lease, then leads, term after term, until it is told to end."""

    def __init__(self, settings: Settings, database: Database, installation: str) -> None:
        self._settings = settings
        self._database = database
        self._installation = installation
        self._clock = SystemClock()
        self._key = load_key(settings.key_file)
        self._wanted = Wanted(installation, Library(settings.recipes, settings.recipe), settings.slurm)
        self._store = SqlStore(database, self._wanted)
        self._runner = ProcessRunner.of(settings.slurm)
        self._run_dirs = SharedRunDirs(settings.run_dir, installation, settings.slurm.prologue)
        self._image_jobs = ImageJobs(settings, self._runner) if settings.images.build == "job" else None
        self._lease = Lease(SqlLeaseRecords(database), self._clock, settings.controller.lease)
        self._leads: Leading | None = None
        self._metrics = Metrics(self._current, self._runner.calls)
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
        clock = TermClock(term.began_at)
        queue = KeyedQueue(clock.now)
        probes = HttpProbes(clock, lambda token: secret(self._key, token), queue.add, self._run_dirs)
        deposed = asyncio.Event()
        try:
            self._metrics.new_term()
            self._leads = await self._leading(term, clock, queue, probes, deposed)
            await self._leads.lead(ending)
        except (SQLAlchemyError, OSError) as error:
            about = {"epoch": term.epoch, "error": cause(error)}
            log.warning("the term ended early, the database can't be used", extra=about)
            await _pause(ending, STANDBY_SECONDS)
        finally:
            self._leads = None
            await probes.close()
        if not deposed.is_set():
            with contextlib.suppress(DeposedError, SQLAlchemyError, OSError):
                await self._lease.release(term)

    async def _leading(
        self, term: Term, clock: TermClock, queue: KeyedQueue, probes: HttpProbes, deposed: asyncio.Event
    ) -> Leading:
        settings = self._settings.controller
        scheduler = SlurmScheduler(self._runner, prefix(self._installation))
        roster = Roster(await self._store.tracked())
        keeper = SnapshotKeeper(scheduler, roster.tracked, clock)
        actor = Actor(
            scheduler=scheduler,
            run_dirs=self._run_dirs,
            probes=probes,
            store=self._store,
            clock=clock,
            site=site(self._settings),
            secret=lambda token: secret(self._key, token),
            time_warning=self._settings.slurm.time_warning,
            may_act=self._lease.holds,
            images=self._image_jobs,
        )
        quotas = Quotas(
            ceilings(self._settings),
            roster,
            clock,
            lambda since, until: gpu_hours(self._database, since, until),
            queue.add,
        )
        await quotas.count_hours()
        rhythm = Rhythm(settings.fastest_reading, settings.slowest_reading)
        reconciler = Reconciler(
            term=term,
            store=self._store,
            cluster=keeper,
            run_dirs=self._run_dirs,
            probes=probes,
            actor=actor,
            roster=roster,
            hurry=rhythm.hurry,
            clock=clock,
            limits=limits(self._settings),
            pace=Pace(clock, settings.submit_burst, settings.submit_rate),
            quotas=quotas,
            report=self._report,
        )
        return Leading(
            term=term,
            lease=self._lease,
            lease_seconds=settings.lease,
            store=self._store,
            keeper=keeper,
            roster=roster,
            reconciler=reconciler,
            strays=Strays(roster, self._store, scheduler),
            queue=queue,
            rhythm=rhythm,
            clock=clock,
            wakeups=lambda: wakeups(self._database),
            resync_seconds=settings.resync,
            workers=settings.workers,
            deposed=deposed,
            quotas=quotas,
            retention=self._retention(term, clock),
            images=self._images(clock),
            witness=self._metrics,
        )

    def _retention(self, term: Term, clock: TermClock) -> Retention | None:
        settings = self._settings
        if not settings.controller.keep_days:
            return None
        keep = settings.controller.keep_days * 86400
        jobs = settings.run_dir / self._installation
        counted = settings.quota.gpu_hours > 0 or settings.quota.gpu_hours_per_service > 0
        return Retention(term, self._database, jobs, keep, clock, keep_month=counted)

    def _images(self, clock: TermClock) -> ImageRetention:
        settings = self._settings
        return ImageRetention(
            self._database,
            self._wanted,
            cache=settings.run_dir / "images",
            jobs=settings.run_dir / self._installation,
            keep=settings.images.keep_days * 86400 or None,
            clock=clock,
        )

    def _current(self) -> Leading | None:
        return self._leads

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
            self._database,
            self._clock.now,
            self._current,
            heartbeat_seconds=settings.lease,
            # The longest pause between two readings, twice, and the longest that one of them may take.
            snapshot_seconds=2 * settings.slowest_reading + self._settings.slurm.command_timeout,
        )
        async with serving(settings.metrics_host, settings.metrics_port, self._metrics, doctor) as port:
            log.info("listening", extra={"host": settings.metrics_host, "port": port})
            yield


async def build(settings: Settings, database: Database) -> Controller:
    """Build the controller on an opened database. Raises `KeyFileError`, and `ValueError` for an unknown failpoint."""
    failpoints.arm(settings.controller.failpoint)
    return Controller(settings, database, await installation_id(database))


async def _pause(ending: asyncio.Event, seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(ending.wait(), seconds)
