"""`ai-factory explain` and `ai-factory controller replay`: why the controller does what it does."""

from __future__ import annotations

from api.cli.context import Context
from api.cli.exits import Exit
from api.cli.programs import ask_controller


def explain(context: Context) -> Exit:
    """Tell what is wanted and seen of a service, and what would be done."""
    return ask_controller(context, "explain", "--output", context.output, "--", context.arguments.service)


def replay(context: Context) -> Exit:
    """Decide again what a log of plans holds."""
    arguments = context.arguments
    chosen = ["--line", str(arguments.line)] if arguments.line is not None else []
    chosen += [f"--service={arguments.service}"] if arguments.service is not None else []
    return ask_controller(context, "replay", *chosen, "--", arguments.file)
