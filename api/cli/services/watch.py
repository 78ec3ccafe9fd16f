"""`ai-factory watch`: services as they change."""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import replace

from api.cli.context import Context
from api.cli.rest.client import connect
from api.cli.rest.streams import ServerEvent, follow
from api.cli.services.rows import COLUMNS, Service, row, status_colour, status_of
from api.cli.terminal.console import Console
from api.cli.terminal.table import layout
from api.contract.exits import Exit

_COLUMNS = (*COLUMNS[:-1], replace(COLUMNS[-1], below=False))
"""Each service takes one line: as many are shown as the terminal has."""


def watch(context: Context) -> Exit:
    """Show services as they change, until Ctrl-C or the end of --timeout."""
    arguments = context.arguments
    known: dict[str, Service] = {}
    seconds = arguments.timeout
    query: dict[str, object] = {"after": 0}
    with connect(context) as client:
        if arguments.service is not None:
            query["service"] = client.service(arguments.service)["id"]
        ends = None if seconds is None else time.monotonic() + seconds
        live = context.console.width is not None and context.output == "table"
        if live:
            _draw(context.console, known)
        for event in follow(client, "/api/v1/watch", query, context.console.note, ends):
            change = taken(known, event)
            if change is None:
                continue
            if context.output == "json":
                context.console.line(json.dumps({"event": event.name, "service": change}, ensure_ascii=False))
            elif live:
                _draw(context.console, known)
            else:
                context.console.line(_line(context.console, change))
    return Exit.OK


def taken(known: dict[str, Service], event: ServerEvent) -> Service | None:
    """Take an event into what is known; return the service it speaks of, `None` where it tells nothing new."""
    if event.name == "reset":
        known.clear()
        return None
    service: Service = json.loads(event.data)
    if event.name == "deleted" and status_of(service) == "deleted":
        return service if known.pop(service["id"], None) is not None else None
    known[service["id"]] = service
    return service


def _line(console: Console, service: Service) -> str:
    at = time.strftime("%H:%M:%S")
    ready = f"{service.get('ready_replicas') or 0}/{'?' if service.get('replicas') is None else service['replicas']}"
    word = status_of(service)
    said = (
        f"{at}  {service['name']}  {console.paint(word, status_colour(word))}  {ready}  {service.get('message') or ''}"
    )
    return " ".join(said.split("\n"))


def _draw(console: Console, known: dict[str, Service]) -> None:
    """Draw the table in the place of the one before; rows that the terminal has no room for are counted."""
    room = max(1, shutil.get_terminal_size().lines - 4)
    rows = [row(service, time.time(), wide=False) for service in known.values()]
    table = layout(_COLUMNS, rows[:room], console.width, console.paint)
    more = [f"… and {len(rows) - room} more"] if len(rows) > room else []
    title = console.paint(f"{time.strftime('%H:%M:%S')}  {len(rows)} services. Ctrl-C ends this.", "dim")
    console.picture([title, *table, *more])
