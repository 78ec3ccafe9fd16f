"""`ai-factory secure`: what others could read or write, closed."""

from __future__ import annotations

from api.cli.context import Context
from api.contract.exits import Exit
from controller.commands.secure import secure as secured


def secure(context: Context) -> Exit:
    """Close state_dir and run_dir to others; exit 1 if something is left that this can't mend."""
    console, found = context.console, []
    for each in secured(context.settings):
        found.append(each)
        if context.output != "json":
            mark = console.paint("✓", "green") if each["is_well"] else console.paint("✗", "red")
            console.line(f"{mark} {each['found']}: {each['done']}")
    left = sum(not each["is_well"] for each in found)
    if context.output == "json":
        console.json(found)
    elif not found:
        console.line("All is this user's alone; nothing to do.")
    elif left:
        console.note(f"{left} left that this can't mend.")
    return Exit.FAILED if left else Exit.OK
