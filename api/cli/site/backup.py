"""`ai-factory backup` and `restore`: the state kept safe."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy.exc import SQLAlchemyError

from api.cli.context import Context
from api.cli.errors import CliError
from api.cli.trust import require_trust
from api.cli.version import program_version
from api.contract.backup import About
from api.contract.backup import backup as write
from api.contract.backup import restore as read
from api.contract.database import Database, cause, head
from api.contract.exits import Exit


def backup(context: Context) -> Exit:
    """Write database and key into one file, while everything runs."""
    file = Path(context.arguments.file)
    key_file = context.settings.key_file
    about = _with_database(context, lambda database: write(database, key_file, file, program_version()))
    context.console.line(f"{file}: installation {about.installation}, schema {about.schema}. Keep it as a secret.")
    return Exit.OK


def restore(context: Context) -> Exit:
    """Fill an empty database from such a file."""
    file = Path(context.arguments.file)
    require_trust(context)
    about = _with_database(context, lambda database: read(database, context.settings.key_file, file))
    made = datetime.fromtimestamp(about.made_at, UTC).isoformat(" ", "seconds")
    context.console.line(f"Installation {about.installation} is as it was at {made}, schema {about.schema}.")
    if about.schema != head():
        context.console.line("The schema is an older one. Next: ai-factory migrate")
    context.console.line(
        "Before you start it: no other controller may run for this installation, and `ai-factory adopt` shows the jobs "
        "that were submitted since."
    )
    return Exit.OK


def _with_database(context: Context, work: Callable[[Database], Awaitable[About]]) -> About:
    async def run() -> About:
        database = Database(context.settings.database_url)
        try:
            return await work(database)
        finally:
            await database.close()

    try:
        return asyncio.run(run())
    except (SQLAlchemyError, OSError) as error:
        raise CliError(f"The database can't be used: {cause(error)}. Try: ai-factory doctor", Exit.SETUP) from error
