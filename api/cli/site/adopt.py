"""`ai-factory adopt`: the jobs of which the database knows nothing, taken up again."""

from __future__ import annotations

import asyncio

from api.cli.context import Context
from api.cli.trust import require_trust
from api.contract.exits import Exit
from api.contract.log import log_to_stderr
from controller.commands.adopt import adopt as adopted
from controller.commands.adopt import cancel, listed, told
from controller.commands.foreign import listed_foreign, told_cancelled, told_foreign


def adopt(context: Context) -> Exit:
    """Show the jobs of which the database knows nothing, take them over, or end those of another installation."""
    log_to_stderr(context.settings)
    require_trust(context)
    if context.arguments.cancel is not None:
        return _cancel(context, context.arguments.cancel)
    console = context.console
    found = asyncio.run(adopted(context.settings, take_over=context.arguments.take))
    others = told_foreign(found.foreign)
    if context.output == "json":
        console.json([listed(stray, stray in found.taken) for stray in found.strays])
        for line in others:
            console.note(line)
        return Exit.OK
    for line in [told(stray, stray in found.taken) for stray in found.strays] or ["The database knows every job."]:
        console.line(line)
    for line in others:
        console.line(line)
    return Exit.OK


def _cancel(context: Context, installation: str) -> Exit:
    cancelled = asyncio.run(cancel(context.settings, installation))
    if context.output == "json":
        context.console.json([listed_foreign(job) for job in cancelled])
    else:
        for line in told_cancelled(cancelled):
            context.console.line(line)
    return Exit.OK
