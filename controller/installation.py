"""One installation as the controller's programs meet it: its settings, its database, and what these are made into."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from api.contract.database import Database, open_database
from api.contract.job.token import prefix
from api.contract.keyring import Keyring
from api.contract.recipes.book import Library
from api.contract.settings import Settings
from controller.cluster.admission import Admission
from controller.cluster.cluster import Cluster
from controller.cluster.pace import Pace
from controller.cluster.quotas import Quotas
from controller.cluster.rhythm import Rhythm
from controller.cluster.tracked_attempts import TrackedAttempts
from controller.ports import Clock, ClusterPorts, ImageMakers, Probes
from controller.rundir import SharedRunDirs
from controller.site import ceilings
from controller.slurm.runner import ProcessRunner
from controller.slurm.scheduler import SlurmScheduler
from controller.store import SqlStore, installation_id
from controller.usage import gpu_hours
from controller.wanted import Wanted


@dataclass(frozen=True, slots=True, kw_only=True)
class Installation:
    """What every program of an installation is built on."""

    settings: Settings
    database: Database
    id: str
    wanted: Wanted
    store: SqlStore
    run_dirs: SharedRunDirs
    runner: ProcessRunner
    """Of Slurm's commands."""

    @property
    def jobs(self) -> Path:
        """The folder of its job folders."""
        return self.settings.run_dir / self.id

    def keyring(self) -> Keyring:
        """Return its keys, for one program or one question."""
        return Keyring(self.settings.key_file)

    @property
    def scheduler(self) -> SlurmScheduler:
        """Its Slurm, for one term or one question: each time it counts from the beginning."""
        return SlurmScheduler(self.runner, prefix(self.id))

    async def cluster(
        self, clock: Clock, probes: Probes, wake: Callable[[str], None], images: ImageMakers | None = None
    ) -> Cluster:
        """Return its cluster as a term meets it that begins now; raises what the database raises."""
        chosen = self.settings.controller
        tracked = TrackedAttempts(await self.store.tracked())
        quotas = Quotas(ceilings(self.settings), tracked, clock, partial(gpu_hours, self.database), wake)
        await quotas.count_hours()
        return Cluster(
            ClusterPorts(scheduler=self.scheduler, run_dirs=self.run_dirs, probes=probes, images=images),
            store=self.store,
            tracked=tracked,
            admission=Admission(Pace(clock, chosen.submit_burst, chosen.submit_rate), quotas),
            rhythm=Rhythm(chosen.fastest_reading, chosen.slowest_reading),
            clock=clock,
        )


async def installation_on(database: Database, settings: Settings) -> Installation:
    """Return the installation of a database; raises what the database raises."""
    own = await installation_id(database)
    library, keyring = Library(settings.recipes, settings.recipe), Keyring(settings.key_file)
    wanted = Wanted(own, library, settings.slurm, keyring.newest)
    return Installation(
        settings=settings,
        database=database,
        id=own,
        wanted=wanted,
        store=SqlStore(database, wanted),
        run_dirs=SharedRunDirs(settings.run_dir, own, settings.slurm.prologue),
        runner=ProcessRunner.of(settings.slurm),
    )


@asynccontextmanager
async def open_installation(settings: Settings) -> AsyncIterator[Installation]:
    """Open the database of these settings, and close it in the end; raises `SchemaError`, and what databases raise."""
    database = await open_database(settings.database_url)
    try:
        yield await installation_on(database, settings)
    finally:
        await database.close()
