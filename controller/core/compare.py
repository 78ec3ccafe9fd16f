"""How two plans differ, as lines for people. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from controller.core.plan import Plan


def differences(before: Plan, after: Plan) -> tuple[str, ...]:
    """Return one line for each value that differs: where, what it was, what it is."""
    return tuple(_walk("", msgspec.to_builtins(before), msgspec.to_builtins(after)))


def changes(before: object, after: object) -> tuple[str, ...]:
    """Return one line for each field that differs between two values of the model; `None` stands for: not there."""
    return tuple(_walk("", msgspec.to_builtins(before) or {}, msgspec.to_builtins(after) or {}))


def _walk(path: str, before: Any, after: Any) -> Iterator[str]:
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        for key in sorted({*before, *after}):
            yield from _walk(f"{path}.{key}" if path else str(key), before.get(key), after.get(key))
    elif _is_list(before) and _is_list(after):
        for index in range(max(len(before), len(after))):
            yield from _walk(f"{path}[{index}]", _at(before, index), _at(after, index))
    elif before != after:
        yield f"{path}: {_shown(before)} → {_shown(after)}"


def _is_list(value: object) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


def _at(items: Sequence[Any], index: int) -> Any:
    return items[index] if index < len(items) else None


def _shown(value: Any) -> str:
    return "nothing" if value is None else msgspec.json.encode(value).decode()
