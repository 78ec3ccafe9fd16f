"""`ai-factory config`: the settings in effect, and where each came from. Secrets are masked."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from api.cli.context import Context
from api.cli.terminal.table import Column
from api.contract.configuration import PREFIX, load, process_environment
from api.contract.database_url import MASK, shown_url
from api.contract.exits import Exit

_SECRET = re.compile(r"password|passwd|secret|credential|(^|_)(token|key|apikey)(_|$)", re.IGNORECASE)
_COLUMNS = (
    Column("SETTING"),
    Column("VALUE", flexible=True),
    Column("SOURCE", colour=lambda source: "dim" if source == "default" else "green"),
)


def show(context: Context) -> Exit:
    """Print all settings in effect."""
    values = dict(leaves(context.settings))
    sources = _sources(context, values)
    shown = {path: masked(path, value) for path, value in values.items()}
    if context.output == "json":
        context.console.json({path: {"value": shown[path], "source": sources[path]} for path in shown})
    else:
        context.console.table(_COLUMNS, [[path, _text(value), sources[path]] for path, value in shown.items()])
    return Exit.OK


def leaves(settings: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the dotted path and the value of every setting, as JSON knows it."""
    for item in fields(settings):
        value = getattr(settings, item.name)
        if is_dataclass(value):
            yield from leaves(value, f"{prefix}{item.name}.")
        else:
            yield f"{prefix}{item.name}", _plain(value)


def masked(path: str, value: Any) -> Any:
    """Return a value with what is secret in it replaced."""
    if path == "database_url":
        return shown_url(str(value))
    if isinstance(value, Mapping):
        return {
            key: MASK if _SECRET.search(key) and not isinstance(inner, Mapping) else masked(f"{path}.{key}", inner)
            for key, inner in value.items()
        }
    return value


def _sources(context: Context, values: Mapping[str, Any]) -> dict[str, str]:
    """Say where each value came from; one that the file repeats from the defaults counts as a default."""
    environment = process_environment()
    bare = {key: value for key, value in environment.items() if not key.startswith(PREFIX)}
    file = context.arguments.config or environment.get(f"{PREFIX}CONFIG")
    defaults = dict(leaves(load(config="/dev/null", environ=bare)))
    filed = dict(leaves(load(config=file, environ=bare)))

    def source(path: str) -> str:
        variable = PREFIX + path.replace(".", "_").upper()
        if path in context.flags:
            return "flag"
        if variable in environment:
            return variable
        return "file" if filed[path] != defaults[path] else "default"

    return {path: source(path) for path in values}


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    return value


def _text(value: Any) -> str:
    return value if isinstance(value, str) else "" if value is None else json.dumps(value, ensure_ascii=False)
