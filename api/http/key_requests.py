"""What is asked for with a key, in the bodies of requests about keys."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from msgspec import UNSET

from api.web.bodies import read_object
from api.web.errors import InvalidError, Problem
from api.web.principal import KeyScope

DAY = 86_400.0
USUAL_LIFE = 90 * DAY
LONGEST_LIFE = 3650 * DAY
LONGEST_NAME = 160
MOST_MODELS = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRequest:
    """A key that is asked for."""

    name: str
    owner: str
    scopes: tuple[str, ...]
    models: tuple[str, ...] | None
    life: float | None
    """Seconds; `None`: without end."""


def read_key_request(body: bytes) -> KeyRequest:
    """Read the body of POST /api/v1/keys; raises `InvalidError`, also for what nobody knows: it may be a limit."""
    fields = read_object(body)
    if problems := list(_problems(fields)):
        raise InvalidError(*problems)
    models = fields.get("models")
    return KeyRequest(
        name=fields["name"],
        owner=fields.get("owner", fields["name"]),
        scopes=tuple(dict.fromkeys(fields.get("scopes", [KeyScope.INFER.value]))),
        models=None if models is None else tuple(dict.fromkeys(models)),
        life=fields.get("expires_in", USUAL_LIFE),
    )


def read_grace(body: bytes) -> float:
    """Read the body of POST …/rotate, which may be empty: for how many seconds the old key goes on."""
    fields = read_object(body) if body.strip() else {}
    problems = [*_unknown(fields, ("grace",)), *_seconds("grace", fields.get("grace", 0), least=0.0)]
    if problems:
        raise InvalidError(*problems)
    return float(fields.get("grace", 0))


def _problems(fields: Mapping[str, Any]) -> Iterator[Problem]:
    yield from _unknown(fields, ("name", "owner", "scopes", "models", "expires_in"))
    if "name" not in fields:
        yield Problem(loc=("body", "name"), msg="Field required", type="missing", input=fields)
    for field in ("name", "owner"):
        if not _is_line(fields.get(field, "x")):
            yield _bad(field, f"must be a line of 1 to {LONGEST_NAME} printable characters", fields[field])
    words = [scope.value for scope in KeyScope]
    scopes = fields.get("scopes", words)
    if not isinstance(scopes, list) or not scopes or any(scope not in words for scope in scopes):
        yield _bad("scopes", f"must be a list of {', '.join(words)}", scopes)
    models = fields.get("models")
    if models is not None and not (isinstance(models, list) and 0 < len(models) <= MOST_MODELS and _are_lines(models)):
        yield _bad("models", f"must be a list of 1 to {MOST_MODELS} names, or null for all models", models)
    if fields.get("expires_in", USUAL_LIFE) is not None:
        yield from _seconds("expires_in", fields.get("expires_in", USUAL_LIFE), least=1.0)


def _seconds(field: str, value: Any, least: float) -> Iterator[Problem]:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not least <= value <= LONGEST_LIFE:
        yield _bad(field, f"must be seconds from {least:g} to {LONGEST_LIFE:.0f}", value)


def _unknown(fields: Mapping[str, Any], known: tuple[str, ...]) -> Iterator[Problem]:
    for field in fields.keys() - set(known):
        yield Problem(loc=("body", field), msg=f"There is only {', '.join(known)}", type="extra_forbidden", input=UNSET)


def _are_lines(values: list[Any]) -> bool:
    return all(map(_is_line, values))


def _is_line(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value.strip()) <= len(value) <= LONGEST_NAME and value.isprintable()


def _bad(field: str, what: str, value: Any) -> Problem:
    return Problem(loc=("body", field), msg=f"{field} {what}", type="value_error", input=value)
