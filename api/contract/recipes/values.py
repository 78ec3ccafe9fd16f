"""The values of a config, as texts that a job can be given. All raise `ConfigError`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from api.contract.recipes.errors import ConfigError

Quantity = TypeVar("Quantity")

LONGEST_VALUE = 16_384


def checked_text(key: str, value: str, *, argument: bool = False) -> str:
    """Return a text of a config if a job can be given it; an `argument` may not look like an option."""
    if len(value) > LONGEST_VALUE:
        raise ConfigError(key, f"is longer than {LONGEST_VALUE} characters.")
    if "\0" in value:
        raise ConfigError(key, "must not contain the character NUL.")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ConfigError(key, "is not valid Unicode text.") from None
    if argument and value.startswith("-"):
        raise ConfigError(key, "must not begin with a hyphen: it would be taken for an option.")
    return value


def read_quantity(key: str, read: Callable[[], Quantity]) -> Quantity:
    """Return what a reader of `units` reads; says what it refuses under the key."""
    try:
        return read()
    except ValueError as error:
        raise ConfigError(key, f"{error}.") from error


def table(config: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """Return the object under a key of a config; none where it is left out."""
    value = config.get(key)
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise ConfigError(key, "must be an object.")
    return value


def as_text(key: str, value: str | int | float | bool) -> str:
    """Return a value as text; Python refuses that for integers of thousands of digits."""
    return read_quantity(key, lambda: plain_text(value))


def plain_text(value: str | int | float | bool) -> str:
    """Return a value as YAML would write it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)
