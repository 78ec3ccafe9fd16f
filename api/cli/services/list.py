"""`ai-factory services list` and `get`."""

from __future__ import annotations

from api.cli.context import Context
from api.cli.rest.client import connect
from api.cli.services.rows import show
from api.contract.exits import Exit


def list_(context: Context) -> Exit:
    """List all services."""
    with connect(context) as client:
        services = client.services()
    if not services and context.output in ("table", "wide"):
        context.console.note("No services yet. Declare one with: ai-factory services create RECIPE")
        return Exit.OK
    show(context, services, services)
    return Exit.OK


def get(context: Context) -> Exit:
    """Show one service."""
    with connect(context) as client:
        service = client.service(context.arguments.service)
    show(context, [service], service)
    return Exit.OK
