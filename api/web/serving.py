"""Ending what is served under a key when the key ends, be it a stream of hours."""

from __future__ import annotations

import asyncio
import logging

from litestar.types import ASGIApp, Message, Middleware, Receive, Scope, Send

from api.web.errors import ApiError
from api.web.keys import Keys

log = logging.getLogger(__name__)

STATE_KEY = "serving"
"""Where a request's scope carries what ends it, in `scope["state"]`."""


def end_with_key(keys: Keys) -> Middleware:
    """Have each request that comes under a key end with it."""

    def wrapped(app: ASGIApp) -> ASGIApp:
        async def served(scope: Scope, receive: Receive, send: Send) -> None:
            has_begun = False

            async def told(message: Message) -> None:
                nonlocal has_begun
                has_begun = True
                await send(message)

            serving = scope["state"][STATE_KEY] = asyncio.timeout(None)
            try:
                async with serving:
                    await app(scope, receive, told)
            except TimeoutError:
                if not serving.expired():
                    raise
                if not has_begun:
                    raise ApiError(401, "The key has ended meanwhile.", code="revoked_api_key") from None
                # The server closes the connection: a client sees that something is missing.
                log.info("what was being answered is cut off: its key has ended")
            finally:
                keys.end(serving)

        return served

    return wrapped
