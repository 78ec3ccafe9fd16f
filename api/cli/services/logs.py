"""`ai-factory logs`: what a service's jobs wrote, and what they go on writing."""

from __future__ import annotations

import json
from typing import Any

from api.cli.context import Context
from api.cli.errors import CliError
from api.cli.rest.client import Client, connect, path_of
from api.cli.rest.streams import follow
from api.cli.services.rows import Service
from api.contract.exits import Exit

MOST_LINES = 100_000


def logs(context: Context) -> Exit:
    """Print logs; with --follow, what comes as well, until the service has ended."""
    arguments = context.arguments
    query = {name: getattr(arguments, name) for name in ("tail", "replica", "attempt")}
    for name, least, most in (("tail", 0, MOST_LINES), ("replica", 0, 1000), ("attempt", 1, 10**9)):
        if query[name] is not None and not least <= query[name] <= most:
            raise CliError(f"--{name} takes a number from {least} to {most}, not {query[name]}.", Exit.USAGE)
    query = {name: value for name, value in query.items() if value is not None}
    with connect(context) as client:
        service = client.service(arguments.service)  # the logs of an unknown id are an answer, not a failure
        if arguments.follow:
            return _follow(context, client, service, query)
        text = client.logs(str(service["id"]), query)
    if context.output == "json":
        context.console.json({"id": service["id"], "logs": text})
    else:
        context.console.text(text)
    return Exit.OK


def _follow(context: Context, client: Client, service: Service, query: dict[str, Any]) -> Exit:
    """Print lines as they come, each with its replica where there are several."""
    console = context.console
    path = f"{path_of(str(service['id']))}/logs"
    several = int(service.get("replicas") or 1) > 1 and "replica" not in query
    for event in follow(client, path, {**query, "follow": "true"}, console.note):
        if event.name == "over":
            return Exit.OK
        data = json.loads(event.data)
        if context.output == "json":
            console.line(json.dumps({"event": event.name, **data}, ensure_ascii=False))
        elif event.name == "log":
            mark = f"{console.paint(str(data['replica']), 'blue')} | " if several else ""
            text = data["text"].removesuffix("\n")
            console.piece("".join(f"{mark}{line}\n" for line in text.split("\n")))
        elif event.name == "gap":
            console.note(f"{data['bytes']} bytes of replica {data['replica']} are left out: the file was rotated.")
        elif event.name == "ended" and data["stream"] == "stdout":
            how = f": {data['outcome']}" if data["outcome"] else ""
            console.note(f"Attempt {data['attempt']} of replica {data['replica']} ended{how}.")
    return Exit.OK
