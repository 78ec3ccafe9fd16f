"""`ai-factory services scale`."""

from __future__ import annotations

from api.cli.context import Context
from api.cli.errors import CliError
from api.cli.rest.client import connect
from api.cli.services.rows import show
from api.cli.services.wait import wait_ready
from api.contract.exits import Exit

MOST_REPLICAS = 1000


def scale(context: Context) -> Exit:
    """Change the number of replicas."""
    number = context.arguments.replicas
    if not 0 <= number <= MOST_REPLICAS:
        raise CliError(f"A service has from 0 to {MOST_REPLICAS} replicas, not {number}.", Exit.USAGE)
    with connect(context) as client:
        service = client.change(context.arguments.service, {"replicas": number})
        if context.arguments.wait and number:
            service = wait_ready(context, client, str(service["id"]), context.arguments.timeout)
    show(context, [service], service)
    return Exit.OK
