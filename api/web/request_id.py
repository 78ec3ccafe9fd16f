"""Every response carries `X-Request-ID`: the client's own, if it is a plain word, else a new one.

The lines that the request logs carry it too.
"""

from __future__ import annotations

import re

from litestar.types import ASGIApp, Message, Receive, Scope, Send

from api.contract.identity import new_id
from api.contract.log import about

HEADER = b"x-request-id"
_PLAIN = re.compile(rb"[A-Za-z0-9._-]{1,64}")


def request_id(scope: Scope) -> str:
    """Return the id of the request, choosing it on the first call."""
    state = scope.setdefault("state", {})
    found = state.get("request_id")
    if found is None:
        given = next((value for name, value in scope["headers"] if name == HEADER), b"")
        found = state["request_id"] = given.decode() if _PLAIN.fullmatch(given) else new_id(12)
    return str(found)


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
