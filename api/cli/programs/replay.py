"""`ai-factory controller replay`: why the controller did what it did."""

from __future__ import annotations

from api.cli.children import ask_controller
from api.cli.context import Context
from api.contract.exits import Exit


def replay(context: Context) -> Exit:
    """Decide again what a log of plans holds."""
    arguments = context.arguments
    chosen = ["--line", str(arguments.line)] if arguments.line is not None else []
    chosen += [f"--service={arguments.service}"] if arguments.service is not None else []
    return ask_controller(context, "replay", *chosen, "--", arguments.file)
