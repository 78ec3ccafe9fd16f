"""`ai-factory explain`: why the controller does what it does."""

from __future__ import annotations

from api.cli.children import ask_controller
from api.cli.context import Context
from api.contract.exits import Exit


def explain(context: Context) -> Exit:
    """Tell what is wanted and seen of a service, and what would be done."""
    return ask_controller(context, "explain", "--output", context.output, "--", context.arguments.service)
