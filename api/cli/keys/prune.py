"""`ai-factory key prune`."""

from __future__ import annotations

import asyncio

from api.cli.context import Context
from api.contract.exits import Exit
from controller.commands import keys


def prune(context: Context) -> Exit:
    """Drop the old keys that no job needs."""
    dropped = asyncio.run(keys.prune(context.settings))
    for one in dropped:
        context.console.line(f"{one} is dropped: no job needs it.")
    if not dropped:
        context.console.line("No key is dropped. Who needs which: ai-factory key list")
    return Exit.OK
