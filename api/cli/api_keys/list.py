"""`ai-factory api-keys list`."""

from __future__ import annotations

from typing import Any

from api.cli.api_keys.limits import LIMITS
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
    Column("LAST USED"),
)
_WIDE = (
    *_COLUMNS,
    Column("PROJECT", flexible=True),
    Column("RECIPES", flexible=True),
    Column("REQUESTS/MIN"),
    Column("TOKENS/MIN"),
    Column("AT ONCE"),
    Column("SECRET"),
    Column("CREATED"),
    Column("REVOKED"),
)


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
    models, recipes = (", ".join(key.get(names) or ["all"]) for names in ("models", "recipes"))
    shown = [key["id"], key["name"], key["owner"], key["state"], ", ".join(key["scopes"]), models]
    shown += [_day(key["expires_at"]), _day(key.get("last_used_at"))]
    if not is_wide:
        return shown
    whose = [key.get("project") or "", recipes, *(str(key[limit] or "any") for limit in LIMITS)]
    return [*shown, *whose, f"{key['start']}…", _day(key["created_at"]), _day(key["revoked_at"])]


def _day(time: str | None) -> str:
    return "never" if time is None else time[:10]
