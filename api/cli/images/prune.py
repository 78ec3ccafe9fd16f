"""`ai-factory images prune`."""

from __future__ import annotations

import asyncio
import math

from api.cli.context import Context
from api.cli.errors import CliError
from api.cli.images.words import origin, size
from api.cli.trust import require_trust
from api.contract.exits import Exit
from controller.commands.images import prune_images

USUAL_DAYS = 30.0
"""For which an image has been unused when `prune` removes it, unless something else is said."""


def prune(context: Context) -> Exit:
    """Remove images that nothing uses."""
    days, dry = context.arguments.unused_for, context.arguments.dry_run
    if days is None:
        days = context.settings.images.keep_days or USUAL_DAYS
    if not 0 <= days < math.inf:
        raise CliError(f"--unused-for takes a number of days, not {days:g}.", Exit.USAGE)
    require_trust(context)
    verdicts = asyncio.run(prune_images(context.settings, unused_for=days * 86400, dry=dry))
    removed = [image for image in verdicts if image["removed"]]
    console = context.console
    if context.output == "json":
        console.json(verdicts)
    elif context.output == "name":
        for image in removed:
            console.line(image["key"])
    else:
        for image in verdicts:
            word = "kept" if not image["removed"] else "to be removed" if dry else "removed"
            console.line(f"{word}: {image['key']} ({origin(image)}, {size(image['size'])}): {image['why']}")
        freed = size(sum(image["size"] for image in removed))
        console.note(f"{len(removed) or 'None'} {'to be removed' if dry else 'removed'}, {freed}.")
    return Exit.OK
