"""`ai-factory up`, `api`, `controller` and `migrate`: the programs of this host."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
from collections.abc import Sequence
from typing import NoReturn

from sqlalchemy.exc import SQLAlchemyError

from api.cli.arguments import program_version
from api.cli.beginning import NEW, installation_of, notes_on
from api.cli.configuration import masked_url
from api.cli.context import Context, server_url
from api.cli.exits import CliError, Exit
from api.cli.supervise import Program, supervise
from api.contract.database import Database, SchemaError, cause, revisions
from api.contract.database import migrate as migrate_database
from api.contract.listen import PortError, listen
from api.contract.traces import find_traces

API = ("-m", "api.http")
CONTROLLER = ("-m", "controller", "run")


def up(context: Context) -> Exit:
    """Bring the database up to date, then run API and controller together until asked to end."""
    api = context.settings.api
    _require_free(api.host, api.port)
    context.console.note(_migrate(context))
    programs = [_program(context, "api", API), _program(context, "controller", CONTROLLER)]
    asyncio.run(supervise(programs, context.console.note, lambda: _greet(context)))
    context.console.note("Ended. Running models are not touched; `ai-factory up` looks after them again.")
    return Exit.OK


def api(context: Context) -> NoReturn:
    """Become the API."""
    _become(context, API)


def controller(context: Context) -> NoReturn:
    """Become the controller."""
    _become(context, CONTROLLER)


def ask_controller(context: Context, *arguments: str) -> Exit:
    """Have the controller's own program answer something; it writes the result itself."""
    command = [sys.executable, "-m", "controller", *arguments]
    ended = subprocess.run(command, env=context.child_environment(), stdin=subprocess.DEVNULL, check=False)
    return Exit(ended.returncode) if ended.returncode in set(Exit) else Exit.FAILED


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
    context.console.line(_migrate(context, revision, arguments.installation))
    return Exit.OK


def _migrate(context: Context, revision: str = "head", installation: str | None = None) -> str:
    """Bring the schema to a revision; return from which to which it went. Raises `CliError` (set-up).

    `installation` is what an empty database begins: an id, or `new`, whatever else may be lost.
    """
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
                raise CliError(f"The database {masked_url(url)} is not empty: it has its installation.", Exit.SETUP)
            begins = before is None and revision != "base"
            notes = notes_on(find_traces(settings), installation, masked_url(url)) if begins else ()
            await migrate_database(database, revision, installation=installation_of(installation))
            for note in notes:
                context.console.note(note)
            return _moved(before, await database.revision())
        finally:
            await database.close()
    except SchemaError as error:
        raise CliError(str(error), Exit.SETUP) from error
    except (SQLAlchemyError, OSError) as error:
        raise CliError(
            f"The database {masked_url(url)} can't be migrated: {cause(error)}. Nothing was changed.", Exit.SETUP
        ) from error


async def _check(url: str) -> str | None:
    try:
        database = Database(url)
        try:
            await database.check()
            return await database.revision()
        finally:
            await database.close()
    except SchemaError as error:
        raise CliError(str(error), Exit.SETUP) from error


def _moved(before: str | None, after: str | None) -> str:
    """Say from which revision to which the schema went."""
    if before == after:
        return f"Schema: {after or 'empty'}, as it was."
    return f"Schema: {before or 'empty'} → {after or 'empty'}."


def _require_free(host: str, port: int) -> None:
    """Raise `CliError` unless the API could listen there; the API itself says so too, but later."""
    try:
        listen(host, port, who="The API", remedy="Give another: ai-factory up --port N").close()
    except PortError as error:
        raise CliError(str(error), Exit.UNREACHABLE) from error


def _program(context: Context, name: str, arguments: Sequence[str]) -> Program:
    return Program(name=name, command=[sys.executable, *arguments], environment=context.child_environment())


def _become(context: Context, arguments: Sequence[str]) -> NoReturn:
    os.execve(sys.executable, [sys.executable, *arguments], context.child_environment())  # noqa: S606


async def _greet(context: Context) -> None:
    """Tell people where things are, once the API listens."""
    settings, url = context.settings, server_url(context.settings)
    host = url.removeprefix("http://").rpartition(":")[0].strip("[]")
    while True:
        with contextlib.suppress(OSError):
            _, writer = await asyncio.open_connection(host, settings.api.port)
            writer.close()
            break
        await asyncio.sleep(0.1)
    context.console.text(
        f"""
  AI Factory Server {program_version()}

    API         {url}
    docs        {url}/docs
    database    {masked_url(settings.database_url)}
    state_dir   {settings.state_dir}
    run_dir     {settings.run_dir}

  Next, in another terminal:
    ai-factory doctor
    ai-factory recipes list
    ai-factory services create inference/vllm_dummy --wait

  Ctrl-C ends API and controller. Running models go on.
"""
    )
