"""Every response carries `X-Request-ID`: the client's own, if it is a plain word, else a new one.

The lines that the request logs carry it too.
"""

from __future__ import annotations

import random
import re

from litestar.types import ASGIApp, Message, Receive, Scope, Send

from api.contract.log import about

HEADER = b"x-request-id"
_PLAIN = re.compile(rb"[A-Za-z0-9._-]{1,64}")


def request_id(scope: Scope) -> str:
    """Return the id of the request, choosing it on the first call."""
    state = scope.setdefault("state", {})
    found: str | None = state.get("request_id")
    if found is None:
        found = state["request_id"] = _given(scope) or _new()
    return found


def _given(scope: Scope) -> str | None:
    for name, value in scope["headers"]:
        if name == HEADER:
            return value.decode() if _PLAIN.fullmatch(value) else None
    return None


def _new() -> str:
    """Return an id that tells requests apart; it opens nothing, so it may be guessed."""
    return f"{random.getrandbits(48):012x}"


async def add_request_id(message: Message, scope: Scope) -> None:
    """Put the id on a response that is about to be sent."""
    if message["type"] == "http.response.start":
        message["headers"] = [*message["headers"], (HEADER, request_id(scope).encode())]


def log_request_id(app: ASGIApp) -> ASGIApp:
    """Give the id to every line that is logged on behalf of a request."""

    async def served(scope: Scope, receive: Receive, send: Send) -> None:
        with about(request_id=request_id(scope)):
            await app(scope, receive, send)

    return served
