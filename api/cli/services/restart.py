"""`ai-factory services restart`, `stop` and `start`."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from api.cli.context import Context
from api.cli.errors import CliError
from api.cli.rest.client import Client, connect
from api.cli.services.rows import show
from api.cli.services.wait import wait_ready, wait_running
from api.contract.exits import Exit


def restart(context: Context) -> Exit:
    """Have every replica launched anew: the mark of the last restart is part of what is launched."""
    name = context.arguments.service
    now = datetime.now(UTC).isoformat(timespec="microseconds")
    with connect(context) as client:
        declared = client.declaration(name)
        if declared["desired_state"] == "stopped" and declared["deleted_at"] is None:
            raise CliError(f"{declared['name']} is stopped. Start it: ai-factory services start {name}")
        service = client.change(str(declared["id"]), {"config": {"restarted_at": now}})
        if context.arguments.wait:
            service = wait_ready(context, client, str(service["id"]), context.arguments.timeout)
    show(context, [service], service)
    return Exit.OK


def stop(context: Context) -> Exit:
    """End the jobs of a service, and keep it."""
    with connect(context) as client:
        return _changed(context, client, {"desired_state": "stopped"})


def start(context: Context) -> Exit:
    """Start a stopped service again."""
    with connect(context) as client:
        if not context.arguments.wait:
            return _changed(context, client, {"desired_state": "running"})
        service = client.change(context.arguments.service, {"desired_state": "running"})
        service = wait_running(context, client, str(service["id"]), context.arguments.timeout)
    show(context, [service], service)
    return Exit.OK


def _changed(context: Context, client: Client, patch: Mapping[str, Any]) -> Exit:
    service = client.change(context.arguments.service, patch)
    show(context, [service], service)
    return Exit.OK
