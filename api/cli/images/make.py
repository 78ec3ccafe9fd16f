"""`ai-factory images pull` and `build`."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable
from typing import TypeVar

from api.cli.context import Context
from api.cli.errors import CliError
from api.cli.images.words import origin, size
from api.cli.trust import require_trust
from api.contract.exits import Exit
from controller.commands.images import make_image

_Made = TypeVar("_Made")


def make(context: Context) -> Exit:
    """Pull or build an image, unless it is there."""
    arguments, console = context.arguments, context.console
    require_trust(context)
    making = make_image(
        context.settings, arguments.what, where=arguments.where, refresh=arguments.refresh, tell=console.aside
    )
    try:
        image = asyncio.run(_until_told(making))
    except asyncio.CancelledError as error:
        raise CliError("interrupted; nothing was made.", Exit.INTERRUPTED) from error
    if context.output == "json":
        console.json(image)
    elif context.output == "name":
        console.line(image["key"])
    else:
        made = "is made" if image["made"] else "was there already; to make it anew: --refresh"
        console.line(f"{image['key']} ({origin(image)}, {size(image['size'])}) {made}.")
    return Exit.OK


async def _until_told(work: Awaitable[_Made]) -> _Made:
    """Cancel the work at Ctrl-C and at TERM: what is being made ends with all that belongs to it."""
    task = asyncio.current_task()
    assert task is not None
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, _once(task.cancel))
    return await work


def _once(cancel: Callable[[], object]) -> Callable[[], None]:
    """Heed the first signal only: a second one would cut the clean-up short."""
    left = [cancel]

    def heed() -> None:
        if left:
            left.pop()()

    return heed
