"""Every response carries `X-Request-ID`: the client's own, if it is a plain word, else a new one."""

from __future__ import annotations

import re

from litestar.types import Message, Scope

from api.contract.identity import new_id

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
