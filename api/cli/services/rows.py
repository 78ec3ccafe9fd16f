"""Services as rows of a table, and in the other formats."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from api.cli.context import Context
from api.cli.terminal.table import Column
from api.cli.terminal.text import duration, one_line

Service = dict[str, Any]

STATUSES = ("pending", "building", "starting", "running", "completed", "failed", "cancelled", "stopping", "deleted")
"""What STATUS may say: the API's words, and for deleted services whether something of them is left on the cluster."""
ENDED = ("Stopped", "Completed", "Failed")
"""Reasons of the condition Progressing while nothing of a service runs."""
_COLOURS = {
    "running": "green",
    "completed": "green",
    "failed": "red",
    "cancelled": "dim",
    "deleted": "dim",
    "unknown": "red",
}


def status_of(service: Service) -> str:
    """Return one of `STATUSES`. A deleted service that the controller has not looked at had nothing on the cluster."""
    if not service.get("deleted_at"):
        return str(service.get("status") or "")
    reason = progress(service)
    return "deleted" if reason is None or reason in ENDED else "stopping"


def progress(service: Service) -> str | None:
    """Return the reason of the condition Progressing; `None` until the controller has looked."""
    conditions = service.get("conditions") or ()
    return next((str(c.get("reason")) for c in conditions if c.get("type") == "Progressing"), None)


def status_colour(word: str) -> str:
    """Return the colour of a status word."""
    return _COLOURS.get(word, "yellow")


COLUMNS = (
    Column("ID"),
    Column("NAME", flexible=True),
    Column("RECIPE", flexible=True),
    Column("STATUS", colour=status_colour),
    Column("READY"),
    Column("AGE"),
    Column("MESSAGE", flexible=True, below=True),
)
WIDE = (*COLUMNS[:-1], Column("CREATED"), Column("ENDPOINT"), COLUMNS[-1])


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
        rows = [row(service, time.time(), wide=wide) for service in services]
        console.table(WIDE if wide else COLUMNS, rows, full=wide)


def tell_warnings(context: Context, service: Service, name: str = "") -> None:
    """Tell people what the API finds to be probably not meant, after what they have written."""
    for text in service.get("warnings") or ():
        context.console.note(f"Warning: {name and f'{name}: '}{one_line(str(text))}")


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


def row(service: Service, now: float, *, wide: bool) -> list[str]:
    """Return a service's cells, of `COLUMNS` or `WIDE`."""
    cells = [str(service.get(key) or "") for key in ("id", "name", "recipe_name")]
    cells += [status_of(service), ready(service), age(service, now)]
    if wide:
        cells += [str(service.get("created_at") or ""), str(service.get("endpoint") or "")]
    return [*cells, str(service.get("message") or "")]
