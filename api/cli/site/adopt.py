"""`ai-factory adopt`: the jobs of which the database knows nothing, taken up again."""

from __future__ import annotations

from api.cli.children import ask_controller
from api.cli.context import Context
from api.contract.exits import Exit


def adopt(context: Context) -> Exit:
    """Show the jobs of which the database knows nothing, take them over, or end those of another installation."""
    arguments = context.arguments
    chosen = ["--take"] if arguments.take else ["--cancel", arguments.cancel] if arguments.cancel is not None else []
    return ask_controller(context, "adopt", "--output", context.output, *chosen)
