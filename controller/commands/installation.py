"""An installation, opened for one command: as the controller builds its parts, but without a term to act in."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from sqlalchemy.exc import SQLAlchemyError

from api.contract.database import Database, cause, open_database
from api.contract.exits import ExitError
from api.contract.identity import prefix
from api.contract.recipes.book import Library
from api.contract.settings import Settings
from controller.ports import UnreadableError
from controller.rundir import SharedRunDirs
from controller.slurm.runner import ProcessRunner
from controller.slurm.scheduler import SlurmScheduler
from controller.store import SqlStore, installation_id
from controller.wanted import Wanted


class InstallationError(ExitError):
    """Its database or its cluster can't be read; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenInstallation:
    """What a command reads an installation with."""

    settings: Settings
    database: Database
    id: str
    wanted: Wanted
    store: SqlStore
    run_dirs: SharedRunDirs
    runner: ProcessRunner
    scheduler: SlurmScheduler
    """Of the jobs that carry the installation's tokens."""


@asynccontextmanager
async def open_installation(settings: Settings) -> AsyncIterator[OpenInstallation]:
    """Open the installation of the settings. Raises `SchemaError`, and `InstallationError` inside as well."""
    database = await open_database(settings.database_url)
    try:
        yield await _parts(settings, database)
    except (SQLAlchemyError, OSError) as error:
        raise InstallationError(f"the database can't be read: {cause(error)}") from error
    except UnreadableError as error:
        raise InstallationError(error.message) from error
    finally:
        await database.close()


async def _parts(settings: Settings, database: Database) -> OpenInstallation:
    own = await installation_id(database)
    wanted = Wanted(own, Library(settings.recipes, settings.recipe), settings.slurm)
    runner = ProcessRunner.of(settings.slurm)
    return OpenInstallation(
        settings=settings,
        database=database,
        id=own,
        wanted=wanted,
        store=SqlStore(database, wanted),
        run_dirs=SharedRunDirs(settings.run_dir, own, settings.slurm.prologue),
        runner=runner,
        scheduler=SlurmScheduler(runner, prefix(own)),
    )
