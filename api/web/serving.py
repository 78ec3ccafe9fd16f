"""Ending what is served under a key when the key ends, be it a stream of hours."""

from __future__ import annotations

import logging
from collections.abc import Callable

from litestar.types import ASGIApp, Message, Receive, Scope, Send

from api.web.keys import Keys, LapsedKeyError, Serving
from api.web.outlet import has_begun

log = logging.getLogger(__name__)

STATE_KEY = "serving"
"""Where a request's scope carries its `Serving`, in `scope["state"]`."""


def end_with_key(keys: Keys) -> Callable[[ASGIApp], ASGIApp]:
    """Have each request that comes under a key end with it."""

    def wrapped(app: ASGIApp) -> ASGIApp:
        async def served(scope: Scope, receive: Receive, send: Send) -> None:
            is_told = False

            async def told(message: Message) -> None:
                nonlocal is_told
                is_told = True
                await send(message)

            try:
                with Serving(keys) as scope["state"][STATE_KEY]:
                    await app(scope, receive, told)
            except LapsedKeyError:
                if not (is_told or has_begun(scope)):
                    raise
                note_cut()

        return served

    return wrapped


def note_cut() -> None:
    """Note that an answer ends early. The server closes the connection: a client sees that something is missing."""
    log.info("what is being answered is cut off: its key has ended")
