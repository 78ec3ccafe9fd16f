"""`python -m controller run`: the daemon. `render RECIPE`: what would be submitted. `explain NAME`: what is seen of a
service, and what would be done. `replay FILE`: decide again what was decided. `images …`: the container images.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec
from sqlalchemy.exc import SQLAlchemyError

from api.contract.database import Database, SchemaError, cause, open_database
from api.contract.identity import KeyFileError
from api.contract.listen import PortError
from api.contract.log import JsonLines, TextLines
from api.contract.recipes.errors import ConfigError
from api.contract.settings import Settings, SettingsError, load
from controller.adopt import LeaderError, find, listed, take, told
from controller.app import build
from controller.core.model import Job
from controller.explain import UnknownServiceError, explain
from controller.explanation import text
from controller.foreign import ForeignError, cancel_foreign, find_foreign, listed_foreign, told_cancelled, told_foreign
from controller.images import command as images
from controller.ports import UnreadableError
from controller.render import render
from controller.replay import ReplayError, replay
from controller.store import installation_id

SETUP_FAILED = 3
PORT_TAKEN = 4
NOT_FOUND = 5


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return its exit code.

    0 well, 1 failed, 2 usage, 3 the set-up does not fit, 4 its port can't be had, 5 there is no such service.
    """
    options = _parser().parse_args(arguments)
    try:
        settings = load(config=options.config)
        _log_to_stderr(settings)
        if options.command == "render":
            print(render(settings, options.recipe, json.loads(options.config_json)))
            return 0
        if options.command == "replay":
            return _replay(options)
        if options.command == "images":
            return images.run(settings, options)
        if options.command == "explain":
            return asyncio.run(_explain(settings, options))
        if options.command == "adopt":
            return asyncio.run(_adopt(settings, options))
        return asyncio.run(_run(settings))
    except (SettingsError, SchemaError, KeyFileError) as error:
        print(f"ai-factory controller: {error}", file=sys.stderr)
        return SETUP_FAILED
    except PortError as error:
        print(f"ai-factory controller: {error}", file=sys.stderr)
        return PORT_TAKEN
    except (UnreadableError, LeaderError, ForeignError) as error:
        print(f"ai-factory: {error}", file=sys.stderr)
        return 1
    except UnknownServiceError as error:
        print(f"ai-factory: {error}", file=sys.stderr)
        return NOT_FOUND
    except (ConfigError, ReplayError, ValueError) as error:
        print(f"ai-factory: {error}", file=sys.stderr)
        return 1


async def _run(settings: Settings) -> int:
    database = await open_database(settings.database_url)
    try:
        await _until_told(settings, database)
    finally:
        await database.close()
    return 0


async def _until_told(settings: Settings, database: Database) -> None:
    controller = await build(settings, database)
    ending = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ending.set)
    await controller.run(ending)


async def _explain(settings: Settings, options: argparse.Namespace) -> int:
    database = await open_database(settings.database_url)
    try:
        told = await explain(settings, database, options.service)
    except (SQLAlchemyError, OSError) as error:
        print(f"ai-factory: the database can't be read: {cause(error)}", file=sys.stderr)
        return 1
    finally:
        await database.close()
    print(msgspec.json.format(msgspec.json.encode(told)).decode() if options.output == "json" else text(told))
    return 0


async def _adopt(settings: Settings, options: argparse.Namespace) -> int:
    database = await open_database(settings.database_url)
    try:
        own = await installation_id(database)
        if options.cancel is not None:
            return _print_cancelled(await cancel_foreign(settings, options.cancel, own), options.output)
        foreign = await find_foreign(settings, own)
        strays = await find(settings, database)
        taken = await take(database, strays, time.time()) if options.take else ()
    finally:
        await database.close()
    others = "\n".join(told_foreign(foreign))
    if options.output == "json":
        _print_json([listed(stray, stray in taken) for stray in strays])
        print(others, end="\n" if others else "", file=sys.stderr)
    else:
        print("\n".join(told(stray, stray in taken) for stray in strays) or "The database knows every job.")
        print(others, end="\n" if others else "")
    return 0


def _print_cancelled(jobs: Sequence[Job], output: str) -> int:
    if output == "json":
        _print_json([listed_foreign(job) for job in jobs])
    else:
        print("\n".join(told_cancelled(jobs)))
    return 0


def _print_json(value: object) -> None:
    print(msgspec.json.format(msgspec.json.encode(value)).decode())


def _replay(options: argparse.Namespace) -> int:
    count = differing = 0
    for result in replay(options.file, line=options.line, service=options.service):
        print(result.text())
        count += 1
        differing += bool(result.differences)
    print(f"{count} decided again, {differing or 'none'} otherwise.", file=sys.stderr)
    return 1 if differing else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m controller", description=__doc__)
    parser.add_argument("--config", help="the TOML file with the settings")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("run", help="run the controller")
    rendering = commands.add_parser("render", help="print what would be submitted, without submitting")
    rendering.add_argument("recipe")
    rendering.add_argument("--config-json", default="{}", help="the service's config, as JSON")
    explaining = commands.add_parser("explain", help="print what is seen of a service, and what would be done")
    explaining.add_argument("service", help="id or name")
    explaining.add_argument("-o", "--output", choices=("table", "json"), default="table")
    adopting = commands.add_parser(
        "adopt", help="print the jobs of which the database knows nothing, or take them over"
    )
    what_to_do = adopting.add_mutually_exclusive_group()
    what_to_do.add_argument("--take", action="store_true")
    what_to_do.add_argument("--cancel", metavar="INSTALLATION", help="cancel the jobs of another installation instead")
    adopting.add_argument("-o", "--output", choices=("table", "json"), default="table")
    images.add(commands)
    replaying = commands.add_parser("replay", help="decide again what a log of plans holds; exit 1 if a plan differs")
    replaying.add_argument("file", type=Path)
    chosen = replaying.add_mutually_exclusive_group()
    chosen.add_argument("--line", type=int, metavar="N", help="only this line, counted from 1")
    chosen.add_argument("--service", metavar="ID", help="only the plans of this service, id or name")
    return parser


def _log_to_stderr(settings: Settings) -> None:
    """Log our own lines at the level that is set, libraries' from warnings on."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines() if settings.controller.log_format == "json" else TextLines())
    logging.basicConfig(handlers=[handler])
    logging.getLogger("controller").setLevel(settings.log_level.upper())


if __name__ == "__main__":
    sys.exit(main())
