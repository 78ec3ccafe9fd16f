"""`ai-factory up`, `api`, `gateway` and `controller`: the programs of this host."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shlex
import socket
import sys
from collections.abc import Iterator, Sequence
from typing import NoReturn

from api.cli.context import Context, server_url, tcp_url
from api.cli.programs.child import Program, start
from api.cli.programs.folders import require_writable
from api.cli.programs.migrate import migrated
from api.cli.programs.supervise import supervise
from api.cli.version import program_version
from api.contract.configuration import PREFIX, SettingsError, load, process_environment
from api.contract.database_url import shown_url
from api.contract.exits import Exit
from api.contract.listen import held, listen_as_set, listen_for_gateway, listen_locally_as_set

API = ("-m", "api.http")
GATEWAY = ("-m", "api.gateway")
CONTROLLER = ("-m", "controller", "run")
MIGRATE = ("-m", "api.cli", "migrate")


def up(context: Context) -> Exit:
    """Bring the database up to date, then run API and controller together until asked to end."""
    settings, say = context.settings, context.console.note
    with held(listen_as_set(settings)) as by_tcp:
        require_writable(settings)
        say(migrated(context))
        with held(listen_locally_as_set(settings)) as locally:
            api, controller = (
                _program(context, "api", API, [*by_tcp, *locally]),
                _program(context, "controller", CONTROLLER),
            )
            asyncio.run(supervise([api, controller], say, lambda: _greet(context), lambda: _migrate(context)))
    context.console.note("Ended. Running models are not touched; `ai-factory up` looks after them again.")
    return Exit.OK


def api(context: Context) -> Exit:
    """Run the API until asked to end."""
    with held(listen_as_set(context.settings)) as by_tcp, held(listen_locally_as_set(context.settings)) as locally:
        asyncio.run(supervise([_program(context, "api", API, [*by_tcp, *locally])], context.console.note))
    return Exit.OK


def gateway(context: Context) -> Exit:
    """Run the gateway's workers until asked to end."""
    with held(listen_for_gateway(context.settings.gateway)) as sockets:
        workers = [_program(context, "gateway", GATEWAY, [each], is_restarted=True) for each in sockets]
        asyncio.run(supervise(workers, context.console.note))
    return Exit.OK


def controller(context: Context) -> NoReturn:
    """Become the controller."""
    require_writable(context.settings)
    _become(context, CONTROLLER)


def _program(
    context: Context,
    name: str,
    arguments: Sequence[str],
    listening: Sequence[socket.socket] = (),
    *,
    is_restarted: bool = False,
) -> Program:
    return Program(
        name=name,
        command=[sys.executable, *arguments],
        environment=context.child_environment(),
        listening=listening,
        is_restarted=is_restarted,
    )


async def _migrate(context: Context) -> None:
    """Bring the database to the schema of the version that is installed now, which may be newer than this process.

    Raises `CliError`.
    """
    migrating = await start(_program(context, "migrate", MIGRATE), context.console.note)
    await migrating.until_last_words()
    if not migrating.ended_well:
        raise migrating.obituary()


def _become(context: Context, arguments: Sequence[str]) -> NoReturn:
    os.execve(sys.executable, [sys.executable, *arguments], context.child_environment())  # noqa: S606


async def _greet(context: Context) -> None:
    """Tell people where things are."""
    settings, url = context.settings, tcp_url(context.settings)
    by_socket = f"\n    socket      {server_url(settings)} for commands; over TCP all need the key"
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
