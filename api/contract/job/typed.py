"""JSON values read as what types say they are: the little of it that a job's own files need, in Python 3.9."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from enum import Enum
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

_WORDS = {str: "a string", bool: "true or false", int: "a whole number", float: "a number"}


def read(kind: Any, value: object) -> Any:
    """Return a value as a type; raises `ValueError`, which names the field.

    A type is a dataclass, `str`, `bool`, `int`, `float`, an enum of words, a tuple, `Mapping`, or a union of such that
    differ in JSON; `Annotated` with functions that raise `ValueError` for what they refuse. Of an object's fields null
    and absent are the same, and unknown ones are ignored.
    """
    origin, parts = get_origin(kind), get_args(kind)
    if origin is Annotated:
        found = read(parts[0], value)
        for check in parts[1:]:
            check(found)
        return found
    if origin is Union:
        parts = tuple(part for part in parts if part is not type(None))
        return read(next((part for part in parts if _fits(part, value)), parts[-1]), value)
    if origin is tuple:
        return _read_tuple(parts, value)
    if origin is Mapping:
        return {read(parts[0], key): _at(key, parts[1], item) for key, item in _dict(value).items()}
    if dataclasses.is_dataclass(kind):
        return _read_fields(kind, _dict(value))
    return _read_plain(kind, value)


def _fits(kind: Any, value: object) -> bool:
    """Whether a type is written as values of this kind are."""
    while get_origin(kind) is Annotated:
        kind = get_args(kind)[0]
    if dataclasses.is_dataclass(kind):
        return isinstance(value, dict)
    return isinstance(value, {tuple: list, Mapping: dict}.get(get_origin(kind), kind))


def _read_tuple(parts: tuple[Any, ...], value: object) -> tuple[Any, ...]:
    if not isinstance(value, list):
        raise ValueError("not a list")
    kinds = [parts[0]] * len(value) if parts[-1] is Ellipsis else list(parts)
    if len(kinds) != len(value):
        raise ValueError(f"not a list of {len(kinds)}")
    return tuple(read(kind, item) for kind, item in zip(kinds, value))


def _read_fields(kind: Any, value: dict[str, object]) -> Any:
    hints = get_type_hints(kind, include_extras=True)
    found = {}
    for field in dataclasses.fields(kind):
        if value.get(field.name) is not None:
            found[field.name] = _at(field.name, hints[field.name], value[field.name])
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise ValueError(f"{field.name}: missing")
    return kind(**found)


def _at(name: str, kind: Any, value: object) -> Any:
    try:
        return read(kind, value)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error


def _dict(value: object) -> dict[str, object]:
    if not isinstance(value, dict):
        raise ValueError("not an object")
    return value


def _read_plain(kind: Any, value: object) -> Any:
    if issubclass(kind, Enum):
        return _read_word(kind, value)
    accepted = (int, float) if kind is float else kind
    if not isinstance(value, accepted) or (isinstance(value, bool) and kind is not bool):
        raise ValueError(f"not {_WORDS[kind]}")
    if isinstance(value, str) and "\0" in value:
        raise ValueError("has a NUL character")
    return kind(value)


def _read_word(kind: type[Enum], value: object) -> Enum:
    try:
        return kind(value)
    except ValueError:
        raise ValueError(f"not one of {', '.join(str(word.value) for word in kind)}") from None
