"""What is asked for with a key, in the bodies of requests about keys."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from msgspec import UNSET

from api.web.bodies import read_object
from api.web.errors import InvalidError, Problem
from api.web.key_limits import LIMITS, MOST, UNLIMITED, KeyLimits
from api.web.principal import KeyScope
from api.web.signed_key import LONGEST_LIFE as LONGEST_SIGNED

DAY = 86_400.0
USUAL_LIFE = 90 * DAY
LONGEST_LIFE = 3650 * DAY
LONGEST_NAME = 160
MOST_NAMES = 1000
_KNOWN = ("name", "owner", "project", "scopes", "models", "recipes", "expires_in", *LIMITS)


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRequest:
    """A key that is asked for."""

    name: str
    owner: str
    scopes: tuple[str, ...]
    models: tuple[str, ...] | None
    project: str | None
    recipes: tuple[str, ...] | None
    life: float | None
    """Seconds; `None`: without end."""
    limits: KeyLimits = UNLIMITED


def read_key_request(body: bytes) -> KeyRequest:
    """Read the body of POST /api/v1/keys; raises `InvalidError`, also for what nobody knows: it may be a limit."""
    fields = read_object(body)
    if problems := list(_problems(fields)):
        raise InvalidError(*problems)
    return KeyRequest(
        name=fields["name"],
        owner=fields.get("owner", fields["name"]),
        scopes=tuple(dict.fromkeys(fields.get("scopes", [KeyScope.INFER.value]))),
        models=_names(fields.get("models")),
        project=fields.get("project"),
        recipes=_names(fields.get("recipes")),
        life=fields.get("expires_in", USUAL_LIFE),
        limits=KeyLimits(**{limit: fields.get(limit) for limit in LIMITS}),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRequest:
    """A signed key that is asked for."""

    scopes: tuple[KeyScope, ...]
    life: float
    """Seconds."""


def read_token_request(body: bytes) -> TokenRequest:
    """Read the body of POST /api/v1/tokens, which may be empty; raises `InvalidError`."""
    fields = read_object(body) if body.strip() else {}
    life = fields.get("expires_in", LONGEST_SIGNED)
    problems = [
        *_unknown(fields, ("scopes", "expires_in")),
        *_scope_problems(fields),
        *_seconds("expires_in", life, least=1.0, most=LONGEST_SIGNED),
    ]
    if problems:
        raise InvalidError(*problems)
    return TokenRequest(scopes=tuple(map(KeyScope, fields.get("scopes", [KeyScope.INFER.value]))), life=float(life))


def read_grace(body: bytes) -> float:
    """Read the body of POST …/rotate, which may be empty: for how many seconds the old key goes on."""
    fields = read_object(body) if body.strip() else {}
    problems = [*_unknown(fields, ("grace",)), *_seconds("grace", fields.get("grace", 0), least=0.0)]
    if problems:
        raise InvalidError(*problems)
    return float(fields.get("grace", 0))


def _names(value: list[str] | None) -> tuple[str, ...] | None:
    return None if value is None else tuple(dict.fromkeys(value))


def _problems(fields: Mapping[str, Any]) -> Iterator[Problem]:
    yield from _unknown(fields, _KNOWN)
    if "name" not in fields:
        yield Problem(loc=("body", "name"), msg="Field required", type="missing", input=fields)
    for field in ("name", "owner", "project"):
        is_left_out = field not in fields or (field == "project" and fields[field] is None)
        if not is_left_out and not _is_line(fields[field]):
            yield _bad(field, f"must be a line of 1 to {LONGEST_NAME} printable characters", fields[field])
    yield from _scope_problems(fields)
    for field in ("models", "recipes"):
        names = fields.get(field)
        if names is not None and not (isinstance(names, list) and 0 < len(names) <= MOST_NAMES and _are_lines(names)):
            yield _bad(field, f"must be a list of 1 to {MOST_NAMES} names, or null for all {field}", names)
    for limit in LIMITS:
        value, most = fields.get(limit), MOST[limit]
        if value is not None and not (isinstance(value, int) and value is not True and 1 <= value <= most):
            yield _bad(limit, f"must be a whole number from 1 to {most}, or null for no limit", value)
    if fields.get("expires_in", USUAL_LIFE) is not None:
        yield from _seconds("expires_in", fields.get("expires_in", USUAL_LIFE), least=1.0)


def _scope_problems(fields: Mapping[str, Any]) -> Iterator[Problem]:
    words = [scope.value for scope in KeyScope]
    scopes = fields.get("scopes", words)
    if not isinstance(scopes, list) or not scopes or any(scope not in words for scope in scopes):
        yield _bad("scopes", f"must be a list of {', '.join(words)}", scopes)


def _seconds(field: str, value: Any, least: float, most: float = LONGEST_LIFE) -> Iterator[Problem]:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not least <= value <= most:
        yield _bad(field, f"must be seconds from {least:g} to {most:.0f}", value)


def _unknown(fields: Mapping[str, Any], known: tuple[str, ...]) -> Iterator[Problem]:
    for field in fields.keys() - set(known):
        yield Problem(loc=("body", field), msg=f"There is only {', '.join(known)}", type="extra_forbidden", input=UNSET)


def _are_lines(values: list[Any]) -> bool:
    return all(map(_is_line, values))


def _is_line(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value.strip()) <= len(value) <= LONGEST_NAME and value.isprintable()


def _bad(field: str, what: str, value: Any) -> Problem:
    return Problem(loc=("body", field), msg=f"{field} {what}", type="value_error", input=value)
