"""`ai-factory api-keys revoke`."""

from __future__ import annotations

from api.cli.context import Context
from api.cli.rest.client import connect
from api.contract.exits import Exit


def revoke(context: Context) -> Exit:
    """Revoke a key."""
    with connect(context) as client:
        key = client.revoke_key(context.arguments.key)
    context.console.line(f"{key['name']} ({key['id']}) of {key['owner']} is revoked.")
    return Exit.OK
