"""What every answer tells browsers: to take it for what it says it is, and to give it to no other origin."""

from __future__ import annotations

from litestar.types import Message, Scope

HEADERS = ((b"x-content-type-options", b"nosniff"), (b"cross-origin-resource-policy", b"same-origin"))


async def add_isolation(message: Message, _: Scope) -> None:
    """Put the headers on a response that is about to be sent."""
    if message["type"] == "http.response.start":
        message["headers"] = [*message["headers"], *HEADERS]
