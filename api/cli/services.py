"""`ai-factory services`: declare services, see them, stop them, wait for them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

from api.cli.client import Client, connect
from api.cli.console import Column, duration
from api.cli.context import Context
from api.cli.exits import CliError, Exit
from api.cli.values import config_from

POLL_FIRST = 0.3
POLL_MOST = 2.0
"""Seconds between two looks while waiting."""

Service = dict[str, Any]

_WORDS = {"running": "green", "completed": "green", "failed": "red", "cancelled": "dim", "unknown": "red"}


def status_colour(word: str) -> str:
    """Return the colour of a status word."""
    return _WORDS.get(word, "yellow")


COLUMNS = (
    Column("ID"),
    Column("NAME", flexible=True),
    Column("RECIPE", flexible=True),
    Column("STATUS", colour=status_colour),
    Column("READY"),
    Column("AGE"),
    Column("MESSAGE", flexible=True),
)
WIDE = (*COLUMNS[:-1], Column("CREATED"), Column("ENDPOINT"), COLUMNS[-1])


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
            service = _wait_running(context, client, service)
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
                _wait_stopped(context, client, str(service["id"]), name)
            context.console.line(str(service["name"]) if context.output == "name" else f"{name} stopped")
    if missing:
        raise CliError(f"There is no service {', '.join(missing)}. See: ai-factory services list", Exit.NOT_FOUND)
    return Exit.OK


def show(context: Context, services: Sequence[Service], value: object) -> None:
    """Write services as asked: `value` is what `-o json` writes."""
    console, output = context.console, context.output
    if output == "json":
        console.json(value)
    elif output == "name":
        for service in services:
            console.line(str(service["name"]))
    else:
        wide = output == "wide"
        rows = [_row(service, time.time(), wide=wide) for service in services]
        console.table(WIDE if wide else COLUMNS, rows, full=wide)


def ready(service: Service) -> str:
    """Return `ready/wanted` replicas, as far as the API says; the wanted ones may be left to the recipe."""
    number, wanted = service.get("ready_replicas"), service.get("replicas")
    if number is None:
        return ""
    return str(number) if wanted is None else f"{number}/{wanted}"


def age(service: Service, now: float) -> str:
    """Return how long ago a service was created; "" if that can't be read."""
    try:
        created = datetime.fromisoformat(str(service.get("created_at")))
    except ValueError:
        return ""
    created = created if created.tzinfo else created.replace(tzinfo=UTC)
    return duration(now - created.timestamp())


def _row(service: Service, now: float, *, wide: bool) -> list[str]:
    row = [str(service.get(key) or "") for key in ("id", "name", "recipe_name", "status")]
    row += [ready(service), age(service, now)]
    if wide:
        row += [str(service.get("created_at") or ""), str(service.get("endpoint") or "")]
    return [*row, str(service.get("message") or "")]


def _wait_running(context: Context, client: Client, service: Service) -> Service:
    """Wait until a service runs. Raises `CliError` if it fails, is cancelled or takes too long."""
    name, seen = str(service["id"]), ""

    def done(now: Service | None) -> bool:
        nonlocal seen
        if now is None:
            return True
        said = f"{now['status']}: {now.get('message') or ''}".rstrip(": ")
        if said != seen:
            context.console.note(f"{now['name']}  {said}")
            seen = said
        return now["status"] in ("running", "completed", "failed", "cancelled")

    final = _wait(client, name, done, context.arguments.timeout)
    if final is None:
        raise CliError(f"The service {name} is gone: somebody removed it.", Exit.NOT_FOUND)
    if not done(final):
        raise CliError(
            f"{final['name']} is still {seen} ({context.arguments.timeout:g} s are over; it goes on). "
            f"See: ai-factory services describe {name}",
            Exit.TIMED_OUT,
        )
    if final["status"] in ("failed", "cancelled"):
        raise CliError(f"{final['name']} is {seen}. See: ai-factory services describe {name}", Exit.FAILED)
    return final


def _wait_stopped(context: Context, client: Client, service: str, name: str) -> None:
    """Wait until the jobs of a service have ended. Raises `CliError` if that takes too long."""
    final = _wait(client, service, _stopped, context.arguments.timeout)
    if not _stopped(final):
        raise CliError(
            f"The jobs of {name} have not ended after {context.arguments.timeout:g} s. Does the controller run? "
            "See: ai-factory doctor",
            Exit.TIMED_OUT,
        )


def _stopped(service: Service | None) -> bool:
    """Say whether nothing of a service runs any more; an API without conditions can only say `cancelled`."""
    if service is None or "conditions" not in service:
        return True
    reasons = [c.get("reason") for c in service["conditions"] or () if c.get("type") == "Progressing"]
    return any(reason in ("Stopped", "Completed", "Failed") for reason in reasons)


def _wait(client: Client, name: str, done: Callable[[Service | None], bool], seconds: float) -> Service | None:
    """Look until `done`, or for so many seconds; return the last look, `None` where the service is gone.

    An API that is away for a while is waited for.
    """
    deadline, pause = time.monotonic() + seconds, POLL_FIRST
    while True:
        over = time.monotonic() >= deadline
        try:
            service: Service | None = client.service(name)
        except CliError as error:
            if error.code is Exit.NOT_FOUND:
                return None
            if error.code is not Exit.UNREACHABLE or over:
                raise
        else:
            if over or done(service):
                return service
        time.sleep(max(0.0, min(pause, deadline - time.monotonic())))
        pause = min(pause * 1.5, POLL_MOST)
