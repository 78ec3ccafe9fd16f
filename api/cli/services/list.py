"""`ai-factory services list` and `get`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from api.cli.context import Context
from api.cli.errors import CliError
from api.cli.rest.client import Client, connect
from api.cli.services.rows import STATUSES, Service, show, status_of
from api.cli.set_flags import config_from
from api.cli.terminal.yaml_text import same_json
from api.contract.exits import Exit

NONE_YET = "No services yet. Declare one with: ai-factory services create RECIPE"


def list_(context: Context) -> Exit:
    """List the services of which something is left; with --all, deleted ones too."""
    arguments = context.arguments
    statuses = _statuses(arguments.statuses)
    wanted = config_from(None, arguments.selectors)
    with connect(context) as client:
        services = _read(client, arguments.recipe, is_all=arguments.all)
    chosen = [
        service
        for service in services
        if (not statuses or status_of(service) in statuses) and _holds(service["config"], wanted)
    ]
    if not chosen and context.output in ("table", "wide"):
        is_chosen = bool(statuses or wanted or arguments.recipe)
        context.console.note("There is no such service." if is_chosen else NONE_YET)
        return Exit.OK
    show(context, chosen, chosen)
    return Exit.OK


def get(context: Context) -> Exit:
    """Show one service."""
    with connect(context) as client:
        service = client.service(context.arguments.service)
    show(context, [service], service)
    return Exit.OK


def _read(client: Client, recipe: str | None, *, is_all: bool) -> list[Service]:
    query = {} if recipe is None else {"recipe": recipe}
    services = client.services(query)
    if not is_all:
        return services
    known = {service["id"]: service for service in [*services, *client.services({**query, "deleted": "true"})]}
    return sorted(known.values(), key=lambda service: str(service["created_at"]))


def _statuses(given: Sequence[str]) -> list[str]:
    """Return the words of --status; raises `CliError` (usage)."""
    words = [word for text in given for word in text.split(",")]
    if unknown := [word for word in words if word not in STATUSES]:
        raise CliError(f"There is no status {unknown[0]!r}. Those that there are: {', '.join(STATUSES)}.", Exit.USAGE)
    return words


def _holds(value: Any, wanted: Any) -> bool:
    """Whether a value is what is wanted; of a mapping, whether each wanted key has what is wanted of it."""
    if not isinstance(wanted, dict):
        return same_json(value, wanted)
    return isinstance(value, dict) and all(key in value and _holds(value[key], wanted[key]) for key in wanted)
