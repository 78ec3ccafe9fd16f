"""`aliases` of a config: further names under which a service's model is asked for. To the job they mean nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

ALIASES = "aliases"
MOST = 100
LONGEST = 160


def alias_problem(value: Any) -> str | None:
    """Return what is wrong with a config's aliases; `None` if nothing is."""
    if value is None or (isinstance(value, list) and len(value) <= MOST and all(map(_is_name, value))):
        return None
    return f"must be a list of at most {MOST} names of models, each 1 to {LONGEST} printable characters"


def aliases(config: Mapping[str, Any]) -> Iterator[str]:
    """Yield the aliases of a stored config, whatever stands there: SQL writes what it likes."""
    value = config.get(ALIASES)
    if isinstance(value, list):
        yield from dict.fromkeys(name for name in value[:MOST] if _is_name(name))


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value) <= LONGEST and value.isprintable()
