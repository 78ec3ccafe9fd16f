"""What clients ask for: a service."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from msgspec import UNSET

from api.contract.identity import SERVICE_NAME
from api.contract.recipes.aliases import ALIASES, alias_problem
from api.contract.recipes.size import size_problem
from api.web.belonging import Access
from api.web.bodies import dict_type, read_object, string_type
from api.web.errors import InvalidError, Problem

RESERVED_NAMES = frozenset({"services", "targets"})
"""Words of our own that stand where a service's name may stand in a path."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceRequest:
    """A service that is asked for."""

    recipe_name: str
    config: dict[str, Any]
    name: str | None
    access: Access | None = None
    """`None`: as the site has it."""


def read_service_request(body: bytes) -> ServiceRequest:
    """Read the body of POST /api/v1/services; raises `InvalidError`. Keys that nobody knows are ignored."""
    fields = read_object(body)
    problems = [
        *_recipe_name_problems(fields),
        *config_problems(fields.get("config", {})),
        *_name_problems(fields.get("name")),
        *access_problems(fields.get("access")),
    ]
    if problems:
        raise InvalidError(*problems)
    return ServiceRequest(
        recipe_name=fields["recipe_name"],
        config=fields.get("config", {}),
        name=fields.get("name"),
        access=None if fields.get("access") is None else Access(fields["access"]),
    )


def config_problem(config: dict[str, Any], key: str, message: str) -> Problem:
    """Return what is wrong at a dotted key of a config."""
    parts = tuple(int(part) if part.isdecimal() else part for part in key.split(".") if part)
    found: Any = config
    for part in parts:
        try:
            found = found[part]
        except (KeyError, IndexError, TypeError):
            found = UNSET
            break
    return Problem(loc=("body", "config", *parts), msg=message, type="value_error", input=found)


def _recipe_name_problems(fields: dict[str, Any]) -> Iterator[Problem]:
    loc = ("body", "recipe_name")
    value = fields.get("recipe_name", UNSET)
    if value is UNSET:
        yield Problem(loc=loc, msg="Field required", type="missing", input=fields)
    elif not isinstance(value, str):
        yield string_type(loc, value)
    elif not value.strip():
        msg = "String should have at least 1 character"
        yield Problem(loc=loc, msg=msg, type="string_too_short", input=value, ctx={"min_length": 1})


def config_problems(value: Any) -> Iterator[Problem]:
    """Say what is wrong with a config, whatever its recipe."""
    loc = ("body", "config")
    if not isinstance(value, dict):
        yield dict_type(loc, value)
    elif _has_nul(value):
        yield Problem(loc=loc, msg="The character NUL can't stand in a config; take it out", type="value_error")
    elif (problem := size_problem(value)) is not None:
        yield Problem(loc=loc, msg=problem, type="value_error")
    elif (problem := alias_problem(value.get(ALIASES))) is not None:
        yield Problem(loc=(*loc, ALIASES), msg=f"{ALIASES} {problem}", type="value_error", input=value[ALIASES])


def access_problems(value: Any) -> Iterator[Problem]:
    """Say what is wrong with who may see a service; `None` is as the site has it."""
    words = [access.value for access in Access]
    if value is not None and value not in words:
        yield Problem(loc=("body", "access"), msg=f"access must be {', '.join(words)}", type="value_error", input=value)


def _has_nul(value: Any) -> bool:
    if isinstance(value, str):
        return "\0" in value
    if isinstance(value, dict):
        return any(_has_nul(key) or _has_nul(inner) for key, inner in value.items())
    return isinstance(value, list) and any(map(_has_nul, value))


def _name_problems(value: Any) -> Iterator[Problem]:
    loc = ("body", "name")
    if value is None:
        return
    if not isinstance(value, str):
        yield string_type(loc, value)
    elif not SERVICE_NAME.fullmatch(value):
        msg = "A name is 1 to 63 lower-case letters, digits and hyphens, with no hyphen at its ends"
        ctx = {"pattern": SERVICE_NAME.pattern}
        yield Problem(loc=loc, msg=msg, type="string_pattern_mismatch", input=value, ctx=ctx)
    elif value in RESERVED_NAMES:
        msg = f"{value} is a word of the API itself; choose another"
        yield Problem(loc=loc, msg=msg, type="value_error", input=value)
