"""`ai-factory api-keys list`."""

from __future__ import annotations

from typing import Any

from api.cli.context import Context
from api.cli.rest.client import connect
from api.cli.terminal.table import Column
from api.contract.exits import Exit

_COLUMNS = (
    Column("ID"),
    Column("NAME", flexible=True),
    Column("OWNER", flexible=True),
    Column("STATE"),
    Column("SCOPES"),
    Column("MODELS", flexible=True),
    Column("EXPIRES"),
)
_WIDE = (*_COLUMNS, Column("SECRET"), Column("CREATED"), Column("REVOKED"))


def list_(context: Context) -> Exit:
    """List the keys."""
    with connect(context) as client:
        keys = client.keys()
    console = context.console
    if context.output == "json":
        console.json(keys)
    elif context.output == "name":
        for key in keys:
            console.line(key["id"])
    elif not keys:
        console.note("No keys yet. Make one with: ai-factory api-keys create NAME")
    else:
        is_wide = context.output == "wide"
        console.table(_WIDE if is_wide else _COLUMNS, [_row(key, is_wide=is_wide) for key in keys], full=is_wide)
    return Exit.OK


def _row(key: dict[str, Any], *, is_wide: bool) -> list[str]:
    models = "all" if key["models"] is None else ", ".join(key["models"])
    shown = [key["id"], key["name"], key["owner"], key["state"], ", ".join(key["scopes"]), models]
    shown.append(_day(key["expires_at"]))
    return [*shown, f"{key['start']}…", _day(key["created_at"]), _day(key["revoked_at"])] if is_wide else shown


def _day(time: str | None) -> str:
    return "never" if time is None else time[:10]
