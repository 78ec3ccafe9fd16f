"""`ai-factory token`: a signed key for some hours, alone on standard output."""

from __future__ import annotations

from api.cli.context import Context
from api.cli.rest.client import connect
from api.contract.exits import Exit


def token(context: Context) -> Exit:
    """Print a signed key."""
    asked = context.arguments
    body = {"expires_in": asked.expires, **({} if asked.scopes is None else {"scopes": asked.scopes})}
    with connect(context) as client:
        made = client.make_token(body)
    if context.output == "json":
        context.console.json(made)
    else:
        context.console.line(made["secret"])
    return Exit.OK
