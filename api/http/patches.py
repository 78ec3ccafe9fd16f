"""PATCH of a service: a JSON merge patch (RFC 7396) of what is wanted, and what comes of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from msgspec import UNSET, UnsetType

from api.contract.recipes.size import size_problem
from api.http.requests import access_problems, config_problems
from api.web.bodies import read_object, string_type
from api.web.errors import ApiError, InvalidError, Problem

_KNOWN = ("config", "replicas", "desired_state", "access")


@dataclass(frozen=True, slots=True, kw_only=True)
class Patch:
    """What is to be changed; `UNSET` stays as it is."""

    config: dict[str, Any] | UnsetType
    replicas: int | UnsetType | None
    desired_state: str | UnsetType
    access: str | UnsetType | None

    def applied(self, config: dict[str, Any]) -> dict[str, Any]:
        """Return a service's config as it will be. `replicas` beside it is put into it where it has its own."""
        merged = config if self.config is UNSET else merge(config, self.config)
        if self.replicas is not UNSET and "replicas" in merged:
            merged = merge(merged, {"replicas": self.replicas})
        if merged != config and (problem := size_problem(merged)) is not None:
            raise ApiError(413, f"The config would be too large. {problem}")
        return merged

    def said(self) -> str:
        """Name what is changed, for people."""
        return ", ".join(name for name in _KNOWN if getattr(self, name) is not UNSET)


def merge(target: Any, patch: Any) -> Any:
    """Return a value after a merge patch: objects are merged, null removes a key, all else takes the old one's place.

    Neither is changed.
    """
    if not isinstance(patch, dict):
        return patch
    merged = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = merge(merged.get(key), value)
    return merged


def read_patch(body: bytes) -> Patch:
    """Read the body of PATCH /api/v1/services/{id}; raises `InvalidError`, also for keys that can't be changed."""
    fields = read_object(body)
    if problems := list(_problems(fields)):
        raise InvalidError(*problems)
    return Patch(
        config=fields.get("config", UNSET),
        replicas=fields.get("replicas", UNSET),
        desired_state=fields.get("desired_state", UNSET),
        access=fields.get("access", UNSET),
    )


def read_status_request(body: bytes) -> None:
    """Read the body of POST …/status, which can only cancel; raises `ApiError` (400) for another word."""
    fields = read_object(body)
    word = fields.get("status", UNSET)
    if word is UNSET:
        raise InvalidError(Problem(loc=("body", "status"), msg="Field required", type="missing", input=fields))
    if not isinstance(word, str):
        raise InvalidError(string_type(("body", "status"), word))
    if word != "cancelled":
        raise ApiError(400, 'A status can only be set to "cancelled", which stops the service.')


def _problems(fields: dict[str, Any]) -> Iterator[Problem]:
    for name, value in fields.items():
        if name not in _KNOWN:
            msg = f"This can't be changed. Only {', '.join(_KNOWN)} can; for all else create another service."
            yield Problem(loc=("body", name), msg=msg, type="extra_forbidden", input=value)
    if "config" in fields:
        yield from config_problems(fields["config"])
    replicas = fields.get("replicas")
    if replicas is not None and (type(replicas) is not int or not 0 <= replicas <= 1000):
        msg = "replicas must be a whole number from 0 to 1000, or null: what config or recipe say"
        yield Problem(loc=("body", "replicas"), msg=msg, type="value_error", input=replicas)
    state = fields.get("desired_state", "running")
    if state not in ("running", "stopped"):
        msg = "desired_state must be running or stopped"
        yield Problem(loc=("body", "desired_state"), msg=msg, type="value_error", input=state)
    yield from access_problems(fields.get("access"))
