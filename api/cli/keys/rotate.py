"""`ai-factory key rotate`."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

from api.cli.context import Context
from api.cli.rest.client import connect
from api.contract.exits import Exit
from controller.commands import keys


def rotate(context: Context) -> Exit:
    """Put a new key before those that there are; with `--now`, launch anew what needs an old one."""
    console, key_file = context.console, context.settings.key_file
    new = keys.rotate(context.settings)
    console.line(f"{new} is the first key of {key_file}: what is launched from now on is launched under it.")
    console.line("The programs of this host heed it at once. Copy the file to the installation's other hosts.")
    if context.arguments.now:
        _launch_anew(context, new)
    console.line("Once no job needs the old keys (ai-factory key list), drop them: ai-factory key prune")
    return Exit.OK


def _launch_anew(context: Context, new: str) -> None:
    """Mark every service as restarted whose jobs need an older key."""
    listed = asyncio.run(keys.list_keys(context.settings))
    needing = {service: name for key in listed if key.id != new for service, name in key.services.items()}
    now = datetime.now(UTC).isoformat(timespec="microseconds")
    with connect(context) as client:
        running = {str(one["id"]) for one in client.living() if one["status"] != "cancelled"}
        for service in sorted(needing.keys() & running, key=needing.__getitem__):
            client.change(service, {"config": {"restarted_at": now}})
            context.console.line(f"{needing[service]} is launched anew, replica by replica.")
