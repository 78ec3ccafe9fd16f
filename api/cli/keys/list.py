"""`ai-factory key list`."""

from __future__ import annotations

import asyncio

from api.cli.context import Context
from api.cli.terminal.table import Column
from api.contract.exits import Exit
from controller.commands.keys import list_keys

_COLUMNS = (Column("KEY"), Column("STATE"), Column("NEEDED BY", flexible=True))


def list_(context: Context) -> Exit:
    """List the keys, and who needs them."""
    keys, console = asyncio.run(list_keys(context.settings)), context.console
    if context.output == "json":
        console.json([{"id": one.id, "newest": one.is_newest, "services": [*one.services.values()]} for one in keys])
    elif context.output == "name":
        for one in keys:
            console.line(one.id)
    else:
        rows = [[one.id, "newest" if one.is_newest else "old", ", ".join(one.services.values())] for one in keys]
        console.table(_COLUMNS, rows)
    return Exit.OK
