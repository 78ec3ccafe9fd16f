"""The program: reads the settings, opens what it needs, says clearly why it can't start, and serves until TERM."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import socket
import sys

import uvloop

from api.contract.configuration import load, process_environment
from api.contract.database import open_database
from api.contract.descriptors import raise_limit
from api.contract.exits import ExitError
from api.contract.keyring import Keyring
from api.contract.listen import listen, listen_locally
from api.contract.settings import Settings
from api.contract.trust import require_trust
from api.http.app import create_app
from api.web.auth import guard_of
from api.web.keys import Keys
from api.web.log import log_to_stderr
from api.web.serve import serve

log = logging.getLogger(__name__)


def main() -> None:
    """Run the program and exit."""
    parser = argparse.ArgumentParser(prog="python -m api.http", description="The REST API of AI Factory Server.")
    parser.add_argument("--config", metavar="FILE", help="the TOML file with the settings")
    parser.add_argument("--set", metavar="KEY=VALUE", action="append", default=[], help="a setting, e.g. api.port=8002")
    options = parser.parse_args()
    flags = dict(item.partition("=")[::2] for item in options.set)
    try:
        settings = load(flags, config=options.config)
    except ExitError as error:
        sys.exit(_say(error))
    sys.exit(run(settings))


def run(settings: Settings) -> int:
    """Serve until TERM or INT; return the exit code. What prevents the start is said on standard error."""
    log_to_stderr(settings)
    raise_limit()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        try:
            runner.run(serve_api(settings))
        except ExitError as error:
            return _say(error)
    return 0


async def serve_api(settings: Settings) -> None:
    """Serve until TERM or INT. Raises `ExitError`."""
    for note in require_trust(settings):
        log.warning("a folder is not closed to others", extra={"found": note})
    guard = guard_of(settings.api, os.getuid(), Keys(settings.gateway.stale_keys))
    database = await open_database(settings.database_url)
    try:
        # Made where there is none, so not before the database is known to have an installation.
        keyring = Keyring(settings.key_file)
        keyring.load()
        listening = _listen(settings)
        app = create_app(settings, database, guard=guard, keyring=keyring, environment=process_environment())
        await serve(app, listening)
    finally:
        await database.close()


def _listen(settings: Settings) -> list[socket.socket]:
    """Listen where the settings say. Raises `PortError`."""
    remedy = "Stop what listens there, or set api.port (api.host) to another."
    listening = [listen(settings.api.host, settings.api.port, who="The API", remedy=remedy)]
    if settings.api.require_key:
        listening.append(listen_locally(settings.api_socket, who="The API"))
    return listening


def _say(error: ExitError) -> int:
    print(error, file=sys.stderr)
    return error.code
