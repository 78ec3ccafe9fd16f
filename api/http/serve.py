"""The program: opens what it needs, says clearly why it can't start, and serves until TERM."""

from __future__ import annotations

import logging
import os
from dataclasses import replace

from api.contract.configuration import process_environment
from api.contract.database import open_database
from api.contract.keyring import Keyring
from api.contract.listen import listen_as_set, listen_locally_as_set
from api.contract.served_tls import served_tls
from api.contract.settings import Settings
from api.contract.trust import require_trust
from api.http.app import create_app
from api.web import program
from api.web.auth import guard_of
from api.web.keys import Keys
from api.web.program import NOTHING, Inherited
from api.web.serve import serve

log = logging.getLogger(__name__)


def main() -> None:
    """Run the program and exit."""
    program.main("api.http", "The REST API of AI Factory Server.", serve_api)


def run(settings: Settings) -> int:
    """Serve until TERM or INT; return the exit code. What prevents the start is said on standard error."""
    return program.run(settings, serve_api)


async def serve_api(settings: Settings, inherited: Inherited = NOTHING) -> None:
    """Serve until TERM or INT. Raises `ExitError`."""
    for note in require_trust(settings):
        log.warning("a folder is not closed to others", extra={"found": note})
    tls = served_tls(settings.api)
    guard = guard_of(settings.api, os.getuid(), Keys(settings.gateway.stale_keys))
    database = await open_database(settings.database_url)
    try:
        # Made where there is none, so not before the database is known to have an installation.
        keyring = Keyring(settings.key_file)
        keyring.load()
        listening = inherited.listening or [*listen_as_set(settings), *listen_locally_as_set(settings)]
        settings = replace(settings, api=replace(settings.api, port=listening[0].getsockname()[1]))
        app = create_app(settings, database, guard=guard, keyring=keyring, environment=process_environment())
        await serve(app, listening, tls=tls, drain=settings.gateway.drain, ready=inherited.tell_ready)
    finally:
        await database.close()
