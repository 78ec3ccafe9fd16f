"""`ai-factory up`, `api` and `controller`: the programs of this host."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from typing import NoReturn

from api.cli.context import Context, server_url, tcp_url
from api.cli.programs.folders import require_writable
from api.cli.programs.migrate import migrated
from api.cli.programs.supervise import Program, supervise
from api.cli.version import program_version
from api.contract.configuration import PREFIX, SettingsError, load, process_environment
from api.contract.database_url import shown_url
from api.contract.exits import Exit
from api.contract.listen import listen

API = ("-m", "api.http")
CONTROLLER = ("-m", "controller", "run")


def up(context: Context) -> Exit:
    """Bring the database up to date, then run API and controller together until asked to end."""
    api = context.settings.api
    _require_free(api.host, api.port)
    require_writable(context.settings)
    context.console.note(migrated(context))
    programs = [_program(context, "api", API), _program(context, "controller", CONTROLLER)]
    asyncio.run(supervise(programs, context.console.note, lambda: _greet(context)))
    context.console.note("Ended. Running models are not touched; `ai-factory up` looks after them again.")
    return Exit.OK


def api(context: Context) -> NoReturn:
    """Become the API."""
    _become(context, API)


def controller(context: Context) -> NoReturn:
    """Become the controller."""
    require_writable(context.settings)
    _become(context, CONTROLLER)


def _require_free(host: str, port: int) -> None:
    """Raise `PortError` unless the API could listen there; the API itself says so too, but later."""
    listen(host, port, who="The API", remedy="Set api.port to another, or: ai-factory up --port N").close()


def _program(context: Context, name: str, arguments: Sequence[str]) -> Program:
    return Program(name=name, command=[sys.executable, *arguments], environment=context.child_environment())


def _become(context: Context, arguments: Sequence[str]) -> NoReturn:
    os.execve(sys.executable, [sys.executable, *arguments], context.child_environment())  # noqa: S606


async def _greet(context: Context) -> None:
    """Tell people where things are, once the API listens."""
    settings, url = context.settings, tcp_url(context.settings)
    by_socket = f"\n    socket      {server_url(settings)} for commands; over TCP all need the key"
    host = url.removeprefix("http://").rpartition(":")[0].strip("[]")
    while True:
        with contextlib.suppress(OSError):
            _, writer = await asyncio.open_connection(host, settings.api.port)
            writer.close()
            break
        await asyncio.sleep(0.1)
    next_commands = "\n    ".join([*_first_lines(context), "ai-factory doctor"])
    context.console.text(
        f"""
  AI Factory Server {program_version()}

    API         {url}{by_socket if settings.api.require_key else ""}
    docs        {url}/docs
    database    {shown_url(settings.database_url)}
    state_dir   {settings.state_dir}
    run_dir     {settings.run_dir}

  Next, in another terminal:
    {next_commands}
    ai-factory recipes list
    ai-factory services create inference/vllm_dummy --wait

  Ctrl-C ends API and controller. Running models go on.
"""
    )


def _first_lines(context: Context) -> Iterator[str]:
    """Yield what has commands in another terminal reach this server, where they would not by themselves."""
    config = context.child_environment().get(f"{PREFIX}CONFIG")
    if config is not None:
        yield f"export {PREFIX}CONFIG={shlex.quote(config)}"
    bare = {key: value for key, value in process_environment().items() if not key.startswith(PREFIX)}
    url = server_url(context.settings)
    with contextlib.suppress(SettingsError):
        if server_url(load(config=config, environ=bare)) == url:
            return
    yield f"export {PREFIX}SERVER={shlex.quote(url)}"
