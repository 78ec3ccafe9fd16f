"""`ai-factory images list`."""

from __future__ import annotations

import asyncio
import time
from datetime import datetime

from api.cli.context import Context
from api.cli.images.words import origin, size
from api.cli.terminal.table import Column
from api.cli.terminal.text import duration
from api.contract.exits import Exit
from controller.commands.images import ListedImage, list_images

_COLUMNS = (
    Column("KEY"),
    Column("IMAGE", flexible=True),
    Column("SIZE"),
    Column("MADE"),
    Column("USED"),
    Column("SERVICES", flexible=True),
)
_WIDE = (*_COLUMNS, Column("JOBS"), Column("SHA-256"), Column("FILE"))


def list_(context: Context) -> Exit:
    """List the images, and who uses them."""
    images = asyncio.run(list_images(context.settings, context.console.warning))
    console = context.console
    if context.output == "json":
        console.json(images)
    elif context.output == "name":
        for image in images:
            console.line(image["key"])
    else:
        wide = context.output == "wide"
        rows = [_row(image, wide=wide) for image in images]
        console.table(_WIDE if wide else _COLUMNS, rows, full=wide)
    return Exit.OK


def _row(image: ListedImage, *, wide: bool) -> list[str]:
    services = "?" if image["services"] is None else ", ".join(image["services"])
    row = [image["key"], origin(image), size(image["size"]), _age(image["made_at"]), _age(image["used_at"]), services]
    if wide:
        jobs = "?" if image["jobs"] is None else ", ".join(image["jobs"])
        row += [jobs, image["sha256"] or "", image["path"]]
    return row


def _age(at: str) -> str:
    return duration(time.time() - datetime.fromisoformat(at).timestamp())
