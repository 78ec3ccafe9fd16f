"""`ai-factory services create` and `delete`."""

from __future__ import annotations

from api.cli.context import Context
from api.cli.errors import CliError
from api.cli.rest.client import connect
from api.cli.services.declarations import read, text_of
from api.cli.services.rows import show, tell_warnings
from api.cli.services.wait import wait_deleted, wait_running
from api.cli.set_flags import config_from
from api.contract.exits import Exit


def create(context: Context) -> Exit:
    """Declare a service; with --wait, wait until it is running."""
    arguments = context.arguments
    config = config_from(arguments.config_file, arguments.assignments)
    if arguments.replicas is not None:
        config["replicas"] = arguments.replicas
    request = {"recipe_name": arguments.recipe, "config": config}
    for key in ("name", "access"):
        if (value := getattr(arguments, key)) is not None:
            request[key] = value
    with connect(context) as client:
        service = client.try_create(request) if arguments.dry_run else client.create(request)
        tell_warnings(context, service)
        if arguments.dry_run:
            context.console.note("Nothing was created: this is what would be.")
        elif arguments.wait:
            service = wait_running(context, client, str(service["id"]), arguments.timeout)
    show(context, [service], service)
    return Exit.OK


def delete(context: Context) -> Exit:
    """Stop services for good; one that is not there does not keep the others from being stopped."""
    arguments = context.arguments
    missing: list[str] = []
    names = [*arguments.services, *(one.name for file in arguments.files for one in read(text_of(file), file))]
    if not names:
        raise CliError("Which services? Name them, or the files that do: -f FILE", Exit.USAGE)
    with connect(context) as client:
        for name in names:
            try:
                service = client.service(name)
                client.delete(str(service["id"]))
            except CliError as error:
                if error.code is not Exit.NOT_FOUND:
                    raise
                missing.append(name)
                continue
            if arguments.wait:
                wait_deleted(context, client, str(service["id"]), arguments.timeout)
            done = "deleted" if arguments.wait else "is being stopped"
            context.console.line(str(service["name"]) if context.output == "name" else f"{name} {done}")
    if missing:
        raise CliError(f"There is no service {', '.join(missing)}. See: ai-factory services list", Exit.NOT_FOUND)
    return Exit.OK
