"""The documents of the API: the contract's, and that of all that is served."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from api.http.openapi import Operation, Schema, document, object_of, ref, text
from api.http.routes import (
    changes,
    groups,
    history,
    keys,
    logs,
    meta,
    prometheus,
    recipes,
    rollouts,
    services,
    tokens,
    vllm,
    watch,
)

_PARTS = tuple(
    routes.DESCRIBED
    for routes in (
        meta,
        recipes,
        services,
        logs,
        changes,
        vllm,
        history,
        rollouts,
        watch,
        groups,
        prometheus,
        keys,
        tokens,
    )
)
_VALIDATION: dict[str, Schema] = {
    "HTTPValidationError": {
        "properties": {"detail": {"items": ref("ValidationError"), "type": "array", "title": "Detail"}},
        "type": "object",
        "title": "HTTPValidationError",
    },
    "ValidationError": object_of(
        "ValidationError",
        {
            "loc": {
                "items": {"anyOf": [{"type": "string"}, {"type": "integer"}]},
                "type": "array",
                "title": "Location",
            },
            "msg": text("Message"),
            "type": text("Error Type"),
        },
        ["loc", "msg", "type"],
    ),
}
_REFUSAL: Schema = {
    "properties": {"detail": text("Detail"), "request_id": text("Request Id")},
    "type": "object",
    "required": ["detail"],
    "title": "Refusal",
}
OPERATIONS = tuple(
    replace(one, further=(), body_fields={}) for part in _PARTS for one in part.operations if not one.is_extended
)
"""The contract's."""


def contract() -> dict[str, Any]:
    """Return the contract's document."""
    return document(OPERATIONS, _schemas())


def operations() -> tuple[Operation, ...]:
    """Return everything that is served: the contract's operations with what they take beside it, then all others."""
    found = [one for part in _PARTS for one in part.operations]
    return tuple(sorted(found, key=lambda one: one.is_extended))


def extended() -> dict[str, Any]:
    """Return the document of everything that is served."""
    schemas = {**_schemas(), "Refusal": _REFUSAL}
    for part in _PARTS:
        schemas |= part.extended_schemas
        for name, fields in part.further_fields.items():
            schemas[name] = {**schemas[name], "properties": {**schemas[name]["properties"], **fields}}
    found = document(operations(), schemas)
    found["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    found["security"] = [{}, {"key": []}]
    return found


def _schemas() -> dict[str, Schema]:
    """Return the contract's schemas, by name."""
    found = dict(_VALIDATION)
    for part in _PARTS:
        found |= part.schemas
    return dict(sorted(found.items()))
