"""The gateway as a program of its own: of an installation it needs the database and what opens doors, no more."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from litestar import Litestar, get

from api.contract.credentials import StoredCredentials
from api.contract.database import Database, open_database
from api.contract.doors import Doors, Opener
from api.contract.identity import read_keys
from api.contract.keyring import Keyring
from api.contract.listen import listen_for_gateway
from api.contract.served_tls import require_tls, served_tls
from api.contract.settings import Settings
from api.gateway.app import gateway_routes
from api.gateway.data_plane import DataPlane
from api.gateway.direct import direct_operations
from api.web import program
from api.web.application import Application
from api.web.auth import OPEN, Guard, is_loopback, own_names
from api.web.change_feed import ChangeFeed
from api.web.errors import HANDLERS
from api.web.isolation import add_isolation
from api.web.keys import Keys
from api.web.local_users import local_users
from api.web.program import NOTHING, Inherited
from api.web.request_id import add_request_id, log_request_id
from api.web.responses import JsonResponse
from api.web.serve import serve
from api.web.serving import end_with_key


def main() -> None:
    """Run the program and exit."""
    program.main("api.gateway", "The gateway of AI Factory Server.", serve_gateway)


async def serve_gateway(settings: Settings, inherited: Inherited = NOTHING) -> None:
    """Serve until TERM or INT. Raises `ExitError`."""
    tls = served_tls(settings.api)
    if not is_loopback(settings.gateway.host):
        require_tls(settings.gateway.host, "gateway.host", settings.api)
    opener = _opener(settings)
    database = await open_database(settings.database_url)
    try:
        listening = inherited.listening or listen_for_gateway(settings.gateway)
        app = create_gateway_app(settings, database, opener)
        await serve(app, listening, tls=tls, drain=settings.gateway.drain, ready=inherited.tell_ready)
    finally:
        await database.close()


def create_gateway_app(settings: Settings, database: Database, opener: Opener) -> Litestar:
    """Return the application over an open database, which stays the caller's to close.

    Keys that are signed it knows only with the installation's key: credentials prove nothing about those who ask.
    """
    keys, feed = Keys(settings.gateway.stale_keys), ChangeFeed(database)
    if isinstance(opener, Keyring):
        keys.signing_keys = opener.signing_keys
    data_plane = DataPlane(settings, database, feed, Doors(opener, "gateway"), keys)
    guard = Guard(
        users=local_users(settings.api, os.getuid()),
        key=None,
        hosts=own_names(settings.gateway.host),
        keys=keys,
        requires_key=settings.api.require_key,
    )

    async def end_watches() -> None: ...

    @asynccontextmanager
    async def lifespan(_: Litestar) -> AsyncIterator[None]:
        await data_plane.begin()
        yield
        await data_plane.close()

    @get("/health", opt=OPEN)
    async def health() -> dict[str, Any]:
        return {
            "status": "healthy",
            "keys": {"last_reading": None if keys.age is None else round(keys.age, 1)},
        }

    app = Application(
        [health, *gateway_routes(data_plane.gateway)],
        guards=[guard],
        middleware=[log_request_id, end_with_key(keys)],
        exception_handlers=HANDLERS,
        before_send=[add_request_id, add_isolation],
        response_class=JsonResponse,
        lifespan=[lifespan],
        openapi_config=None,
        logging_config=None,
    )
    app.direct = direct_operations(data_plane.gateway, guard)
    app.state.until_known, app.state.end_streams = data_plane.until_known, data_plane.end_streams
    app.state.end_watches = end_watches
    return app


def _opener(settings: Settings) -> Opener:
    """Return what opens doors: the credentials that are named, else the key of the installation on this host.

    Raises `CredentialsError`, `KeyFileError`; a key is never made here.
    """
    if settings.gateway.credentials is not None:
        stored = StoredCredentials(settings.gateway.credentials)
        stored.load()
        return stored
    read_keys(settings.key_file)
    keyring = Keyring(settings.key_file)
    keyring.load()
    return keyring
