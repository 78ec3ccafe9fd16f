"""`ai-factory controller replay`: why the controller did what it did."""

from __future__ import annotations

from pathlib import Path

from api.cli.context import Context
from api.contract.exits import Exit
from controller.commands.replay import replay as replayed


def replay(context: Context) -> Exit:
    """Decide again what a log of plans holds; exit 1 if a plan differs."""
    arguments, console = context.arguments, context.console
    count = differing = 0
    for result in replayed(Path(arguments.file), line=arguments.line, service=arguments.service):
        console.text(result.text())
        count += 1
        differing += bool(result.differences)
    console.note(f"{count} decided again, {differing or 'none'} otherwise.")
    return Exit.FAILED if differing else Exit.OK
