"""`ai-factory api-keys create` and `rotate`: what writes a secret, alone on standard output."""

from __future__ import annotations

from typing import Any

from api.cli.api_keys.limits import LIMITS
from api.cli.context import Context
from api.cli.rest.client import connect
from api.contract.exits import Exit


def create(context: Context) -> Exit:
    """Make a key."""
    asked = context.arguments
    names = ("owner", "project", "scopes", "models", "recipes", *LIMITS)
    given = {name: getattr(asked, name) for name in names}
    body = {name: value for name, value in given.items() if value is not None}
    with connect(context) as client:
        key = client.make_key({"name": asked.name, "expires_in": asked.expires, **body})
    return _give(context, key)


def rotate(context: Context) -> Exit:
    """Make a key in another's place."""
    asked = context.arguments
    with connect(context) as client:
        key = client.rotate_key(asked.key, asked.grace)
    return _give(context, key)


def _give(context: Context, key: dict[str, Any]) -> Exit:
    console = context.console
    if context.output == "json":
        console.json(key)
        return Exit.OK
    until = "without end" if key["expires_at"] is None else f"until {key['expires_at'][:16].replace('T', ' ')} UTC"
    models = "" if key["models"] is None else f", models {', '.join(key['models'])}"
    limits = "".join(f", {key[limit]:,} {what}" for limit, what in LIMITS.items() if key[limit] is not None)
    console.note(f"{key['name']} ({key['id']}) of {key['owner']}: {', '.join(key['scopes'])}{models}{limits}, {until}.")
    console.note("This is its secret, which is not shown again:")
    console.line(key["secret"])
    return Exit.OK
