"""`ai-factory images pull` and `build`."""

from __future__ import annotations

from api.cli.context import Context
from api.cli.images.ask import ask
from api.cli.images.words import origin, size
from api.contract.exits import Exit


def make(context: Context) -> Exit:
    """Pull or build an image, unless it is there."""
    arguments = context.arguments
    options = [f"--where={arguments.where}"] if arguments.where else []
    options += ["--refresh"] if arguments.refresh else []
    code, image = ask(context, "make", *options, "--", arguments.what)
    console = context.console
    if image is None:
        return code
    if context.output == "json":
        console.json(image)
    elif context.output == "name":
        console.line(image["key"])
    else:
        made = "is made" if image["made"] else "was there already; to make it anew: --refresh"
        console.line(f"{image['key']} ({origin(image)}, {size(image['size'])}) {made}.")
    return Exit.OK
