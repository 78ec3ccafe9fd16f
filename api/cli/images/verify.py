"""`ai-factory images verify`."""

from __future__ import annotations

from api.cli.context import Context
from api.cli.images.words import origin
from api.cli.terminal.table import Column
from api.contract.exits import Exit
from controller.commands.images import VerifiedImage, verify_images

_VERIFIED = (
    Column("KEY"),
    Column("IMAGE", flexible=True),
    Column("STATE", colour=lambda state: {"ok": "green", "damaged": "red"}.get(state, "yellow")),
    Column("MESSAGE", flexible=True),
)


def verify(context: Context) -> Exit:
    """Verify images; exit 1 if one is damaged, removed or not."""
    found = verify_images(context.settings, context.arguments.keys, remove=context.arguments.remove)
    damaged = [image for image in found if image["state"] == "damaged"]
    console = context.console
    if context.output == "json":
        console.json(found)
    else:
        console.table(_VERIFIED, [[i["key"], origin(i), i["state"], i["message"]] for i in found])
        for image in damaged:
            console.note(f"{image['key']}: {_remedy(image)}")
        console.note(f"{len(found)} verified, {len(damaged) or 'none'} damaged.")
    return Exit.FAILED if damaged else Exit.OK


def _remedy(image: VerifiedImage) -> str:
    if image["removed"]:
        return "damaged and removed; the next job makes it anew."
    again = f"ai-factory images pull --refresh {image['source']}" if image["source"] is not None else None
    return "damaged. " + (
        f"Make it anew, while jobs go on: {again}"
        if again
        else f"Remove it: ai-factory images verify {image['key']} --remove. The next job makes it anew."
    )
