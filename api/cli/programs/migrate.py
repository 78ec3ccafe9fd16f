"""`ai-factory migrate`, and how `up` brings the database up to date."""

from __future__ import annotations

import asyncio

from sqlalchemy.exc import SQLAlchemyError

from api.cli.context import Context
from api.cli.errors import CliError
from api.cli.programs.beginning import NEW, installation_of, notes_on
from api.cli.trust import require_trust
from api.contract.database import Database, cause, revisions
from api.contract.database import migrate as migrate_database
from api.contract.database_url import shown_url
from api.contract.exits import Exit
from api.contract.traces import find_traces


def migrate(context: Context) -> Exit:
    """Bring the schema to a revision, or only check that it is the one of this version."""
    arguments = context.arguments
    revision = arguments.revision
    if arguments.check:
        context.console.line(f"The schema is as it should be: {asyncio.run(_check(context.settings.database_url))}.")
        return Exit.OK
    known = {"head", "base", *revisions()}
    if revision not in known:
        raise CliError(f"There is no revision {revision}. Known are: {', '.join(sorted(known))}.", Exit.USAGE)
    context.console.line(migrated(context, revision, arguments.installation))
    return Exit.OK


def migrated(context: Context, revision: str = "head", installation: str | None = None) -> str:
    """Bring the schema to a revision; return from which to which it went. Raises `CliError` (set-up).

    `installation` is what an empty database begins: an id, or `new`, whatever else may be lost.
    """
    require_trust(context)
    return asyncio.run(_migrated(context, revision, installation))


async def _migrated(context: Context, revision: str, installation: str | None) -> str:
    settings = context.settings
    url = settings.database_url
    try:
        database = Database(url)
        try:
            before = await database.revision()
            if before is not None and before not in revisions():
                await database.check()  # says that a newer version made it
            if before is not None and installation == NEW:
                raise CliError(f"The database {shown_url(url)} is not empty: it has its installation.", Exit.SETUP)
            begins = before is None and revision != "base"
            notes = notes_on(find_traces(settings), installation, shown_url(url)) if begins else ()
            await migrate_database(database, revision, installation=installation_of(installation))
            for note in notes:
                context.console.note(note)
            return _moved(before, await database.revision())
        finally:
            await database.close()
    except (SQLAlchemyError, OSError) as error:
        raise CliError(
            f"The database {shown_url(url)} can't be migrated: {cause(error)}. Nothing was changed.", Exit.SETUP
        ) from error


async def _check(url: str) -> str | None:
    database = Database(url)
    try:
        await database.check()
        return await database.revision()
    finally:
        await database.close()


def _moved(before: str | None, after: str | None) -> str:
    """Say from which revision to which the schema went."""
    if before == after:
        return f"Schema: {after or 'empty'}, as it was."
    return f"Schema: {before or 'empty'} → {after or 'empty'}."
