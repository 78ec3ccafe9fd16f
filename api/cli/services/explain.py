"""`ai-factory explain`: why the controller does what it does."""

from __future__ import annotations

import asyncio

from api.cli.context import Context
from api.contract.exits import Exit
from api.contract.log import log_to_stderr
from controller.commands.explain import explain as explained
from controller.commands.explanation import document, text


def explain(context: Context) -> Exit:
    """Tell what is wanted and seen of a service, and what would be done."""
    log_to_stderr(context.settings)
    told = asyncio.run(explained(context.settings, context.arguments.service))
    if context.output == "json":
        context.console.json(document(told))
    else:
        context.console.text(text(told))
    return Exit.OK
