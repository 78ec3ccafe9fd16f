"""What a config gives a recipe's parameters: each of its declared type and within its bounds."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import regex

from api.contract.recipes.errors import ConfigError
from api.contract.recipes.schema import Parameter, RecipeFile
from api.contract.recipes.units import whole_number
from api.contract.recipes.values import as_text, checked_text, read_quantity, table

MOST_ITEMS = 256
MATCH_SECONDS = 0.1
"""A pattern may be one that takes for ever, e.g. `(a+)+`; other threads go on meanwhile."""


def resolve_parameters(content: RecipeFile, config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the value of each parameter, as text or list of texts; `None` where it is not set."""
    nested = table(config, "parameters")
    for name in nested:
        if name not in content.parameters:
            known = ", ".join(sorted(content.parameters)) or "none"
            raise ConfigError(f"parameters.{name}", f"The recipe has no such parameter. It has: {known}.")
    values: dict[str, Any] = {}
    for name, parameter in content.parameters.items():
        key, given = _given(name, parameter, config)
        value = parameter.default if given is None else given
        if value is None and parameter.required:
            raise ConfigError(key, f"This recipe needs it. {parameter.description}".strip())
        values[name] = None if value is None else _checked(key, parameter, value)
    return values


def _given(name: str, parameter: Parameter, config: Mapping[str, Any]) -> tuple[str, Any]:
    """Return the value that a config gives a parameter, after the key under which it does."""
    nested, environment = table(config, "parameters"), table(config, "environment")
    is_nested = nested.get(name) is not None
    key, value = (f"parameters.{name}", nested[name]) if is_nested else (name, config.get(name))
    if value is None and parameter.variable is not None and environment.get(parameter.variable) is not None:
        return f"environment.{parameter.variable}", environment[parameter.variable]
    return key, value


def _checked(key: str, parameter: Parameter, value: Any) -> Any:
    """Return the value as text or list of texts, once it is of the declared type and within its bounds.

    Where the items of a list have a pattern, a text is a list of one.
    """
    if parameter.type == "list":
        return _checked_list(key, parameter, value)
    result = _scalar(key, parameter, value)
    number = value if isinstance(value, int | float) else None
    if parameter.choices is not None and value not in parameter.choices and result not in parameter.choices:
        raise ConfigError(key, f"must be one of {', '.join(map(str, parameter.choices))}.")
    if parameter.pattern is not None:
        _match(key, parameter.pattern, result)
    if number is None and parameter.type in ("integer", "number"):
        number = float(result)
    if number is not None and parameter.minimum is not None and number < parameter.minimum:
        raise ConfigError(key, f"must be at least {parameter.minimum:g}.")
    if number is not None and parameter.maximum is not None and number > parameter.maximum:
        raise ConfigError(key, f"must be at most {parameter.maximum:g}.")
    return result


def _match(key: str, pattern: str, text: str) -> None:
    try:
        is_match = regex.fullmatch(pattern, text, timeout=MATCH_SECONDS, concurrent=True)
    except TimeoutError:
        message = f"can't be checked: the recipe's pattern {pattern} takes too long over it. It has to be simplified."
        raise ConfigError(key, message) from None
    if not is_match:
        raise ConfigError(key, f"must match {pattern}.")


def _scalar(key: str, parameter: Parameter, value: Any) -> str:
    if parameter.type == "boolean":
        if not isinstance(value, bool):
            raise ConfigError(key, "must be true or false.")
        return "true" if value else "false"
    if parameter.type == "integer":
        return str(read_quantity(key, lambda: whole_number(value, least=-(10**9), most=10**9)))
    if parameter.type == "number":
        text = as_text(key, value) if isinstance(value, int | float) and not isinstance(value, bool) else value
        if not isinstance(text, str) or not re.fullmatch(r"-?[0-9]{1,20}(\.[0-9]{1,20})?(e[+-]?[0-9]{1,3})?", text):
            raise ConfigError(key, "must be a number.")
        return text
    if not isinstance(value, str):
        raise ConfigError(key, "must be text.")
    return checked_text(key, value, argument=True)


def _checked_list(key: str, parameter: Parameter, value: Any) -> list[str]:
    if parameter.pattern is not None and isinstance(value, str):
        text = checked_text(key, value)
        _match(key, parameter.pattern, text)
        return [text]
    if not isinstance(value, list) or len(value) > MOST_ITEMS:
        raise ConfigError(key, f"must be a list of at most {MOST_ITEMS} texts.")
    items: list[str] = []
    for index, item in enumerate(value):
        if isinstance(item, bool) or not isinstance(item, str | int | float):
            raise ConfigError(f"{key}.{index}", "must be text.")
        text = checked_text(f"{key}.{index}", as_text(f"{key}.{index}", item))
        option = text.partition("=")[0].replace("_", "-")
        # argparse takes any unique beginning of an option's name for the option.
        if option.startswith("-") and any(f.startswith(option) for f in parameter.forbidden):
            what = f"{option} is set by the recipe: give the parameter that is for it, or leave it out"
            raise ConfigError(f"{key}.{index}", f"{what}.")
        if parameter.pattern is not None:
            _match(f"{key}.{index}", parameter.pattern, text)
        items.append(text)
    return items
