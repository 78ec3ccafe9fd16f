"""`python -m controller run`: the daemon. `python -m controller render RECIPE`: what would be submitted."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import signal
import sys
from collections.abc import Sequence

from api.contract.database import Database, SchemaError, open_database
from api.contract.identity import KeyFileError
from api.contract.recipes.resolve import ConfigError
from api.contract.settings import Settings, SettingsError, load
from controller.app import build
from controller.render import render

SETUP_FAILED = 3


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return its exit code: 0 well, 1 failed, 2 usage, 3 the set-up does not fit."""
    options = _parser().parse_args(arguments)
    try:
        settings = load(config=options.config)
        _log_to_stderr(settings)
        if options.command == "render":
            print(render(settings, options.recipe, json.loads(options.config_json)))
            return 0
        return asyncio.run(_run(settings))
    except (SettingsError, SchemaError, KeyFileError) as error:
        print(f"ai-factory controller: {error}", file=sys.stderr)
        return SETUP_FAILED
    except (ConfigError, ValueError) as error:
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


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m controller", description=__doc__)
    parser.add_argument("--config", help="the TOML file with the settings")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("run", help="run the controller")
    rendering = commands.add_parser("render", help="print what would be submitted, without submitting")
    rendering.add_argument("recipe")
    rendering.add_argument("--config-json", default="{}", help="the service's config, as JSON")
    return parser


def _log_to_stderr(settings: Settings) -> None:
    """Log our own lines at the level that is set, libraries' from warnings on."""
    logging.basicConfig(stream=sys.stderr, format="%(asctime)s %(levelname)-7s %(name)s %(message)s")
    logging.getLogger("controller").setLevel(settings.log_level.upper())


if __name__ == "__main__":
    sys.exit(main())
