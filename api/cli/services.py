"""`ai-factory services list`, `get`, `create` and `delete`."""

from __future__ import annotations

from api.cli.client import connect
from api.cli.context import Context
from api.cli.exits import CliError, Exit
from api.cli.table import show
from api.cli.values import config_from
from api.cli.waiting import wait_deleted, wait_running


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


def create(context: Context) -> Exit:
    """Declare a service; with --wait, wait until it is running."""
    arguments = context.arguments
    config = config_from(arguments.config_file, arguments.assignments)
    if arguments.replicas is not None:
        config["replicas"] = arguments.replicas
    request = {"recipe_name": arguments.recipe, "config": config}
    if arguments.name is not None:
        request["name"] = arguments.name
    with connect(context) as client:
        service = client.create(request)
        if arguments.wait:
            service = wait_running(context, client, str(service["id"]), arguments.timeout)
    show(context, [service], service)
    return Exit.OK


def delete(context: Context) -> Exit:
    """Stop services for good; one that is not there does not keep the others from being stopped."""
    missing: list[str] = []
    with connect(context) as client:
        for name in context.arguments.services:
            try:
                service = client.service(name)
                client.delete(str(service["id"]))
            except CliError as error:
                if error.code is not Exit.NOT_FOUND:
                    raise
                missing.append(name)
                continue
            if context.arguments.wait:
                wait_deleted(context, client, str(service["id"]), context.arguments.timeout)
            context.console.line(str(service["name"]) if context.output == "name" else f"{name} stopped")
    if missing:
        raise CliError(f"There is no service {', '.join(missing)}. See: ai-factory services list", Exit.NOT_FOUND)
    return Exit.OK
