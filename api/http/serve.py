"""The program: reads the settings, opens what it needs, says clearly why it can't start, and serves until TERM."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import socket
import sys
from collections.abc import Awaitable, Callable

import uvicorn
import uvloop

from api.contract.database import SchemaError, open_database
from api.contract.identity import KeyFileError, load_key
from api.contract.settings import ApiSettings, Settings, SettingsError, load, process_environment
from api.http.app import create_app
from api.web.auth import UnsafeError, open_door
from api.web.log import log_to_stderr
from api.web.peers import PeerProtocol

BACKLOG = 2048
GRACE_SECONDS = 3
"""For requests in flight after TERM; the whole end takes less than 5 s."""

log = logging.getLogger(__name__)


class PortError(Exception):
    """The address can't be listened on; the message says why."""


EXIT_CODES: dict[type[Exception], int] = {
    SettingsError: 3,
    SchemaError: 3,
    UnsafeError: 3,
    KeyFileError: 3,
    PortError: 4,
}
"""Why it did not start."""


def main() -> None:
    """Run the program and exit."""
    parser = argparse.ArgumentParser(prog="python -m api.http", description="The REST API of AI Factory Server.")
    parser.add_argument("--config", metavar="FILE", help="the TOML file with the settings")
    parser.add_argument("--set", metavar="KEY=VALUE", action="append", default=[], help="a setting, e.g. api.port=8002")
    options = parser.parse_args()
    flags = dict(item.partition("=")[::2] for item in options.set)
    try:
        settings = load(flags, config=options.config)
    except SettingsError as error:
        sys.exit(_say(error))
    sys.exit(run(settings))


def run(settings: Settings) -> int:
    """Serve until TERM or INT; return the exit code. What prevents the start is said on standard error."""
    log_to_stderr(settings.log_level)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        try:
            runner.run(serve(settings))
        except tuple(EXIT_CODES) as error:
            return _say(error)
    return 0


async def serve(settings: Settings) -> None:
    """Serve until TERM or INT. Raises the errors of `EXIT_CODES`."""
    door = open_door(settings.api, os.getuid())
    database = await open_database(settings.database_url)
    try:
        # Made where there is none, so not before the database is known to have an installation.
        key = load_key(settings.key_file)
        listening = listen(settings.api)
        app = create_app(settings, database, door=door, key=key, environment=process_environment())
        server = Server(
            uvicorn.Config(
                app,
                http=PeerProtocol,
                ws="none",
                lifespan="on",
                # The client's address is the connection's: a header must not be able to say otherwise.
                proxy_headers=False,
                access_log=False,
                log_config=None,
                server_header=False,
                timeout_graceful_shutdown=GRACE_SECONDS,
            ),
            app.state.end_streams,
        )
        _outlive_signals()
        log.info("listening on %s port %s", *listening.getsockname()[:2])
        await server.serve(sockets=[listening])
    finally:
        await database.close()


class Server(uvicorn.Server):
    """A server that ends streams first when it is told to stop: they would last as long as their clients do.

    Before that it stops listening: else who is cut off comes back at once, again and again, and nothing else gets done.
    """

    def __init__(self, config: uvicorn.Config, end_streams: Callable[[], Awaitable[None]]) -> None:
        super().__init__(config)
        self._end_streams = end_streams

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop."""
        for server in self.servers:
            server.close()
        await self._end_streams()
        await super().shutdown(sockets)


def listen(settings: ApiSettings) -> socket.socket:
    """Bind the address, so that clients may connect from now on; raises `PortError`."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        return socket.create_server((settings.host, settings.port), family=family, backlog=BACKLOG)
    except OSError as error:
        reason = error.strerror if isinstance(error, socket.gaierror) else os.strerror(error.errno or 0)
        raise PortError(
            f"The API can't listen on {settings.host} port {settings.port}: {reason}. "
            "Stop what listens there, or set api.port (api.host) to another."
        ) from error


def _outlive_signals() -> None:
    """Let the program end in order: after its end uvicorn raises once more the signals that ended it."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)


def _say(error: Exception) -> int:
    print(error, file=sys.stderr)
    return next(code for kind, code in EXIT_CODES.items() if isinstance(error, kind))
