"""How operations and schemas are described, and how a document is made of them.

Each module of `routes` describes its own, as data: the contract's document says the contract and no more, the extended
one what has grown since. `documents` puts them together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from api.http.paging import MOST
from api.web.belonging import Access
from api.web.errors import NAMES_REQUEST

TITLE = "AI Factory Server Service"
VERSION = "1.0.0"
DESCRIPTION = "SLURM + Apptainer orchestration for AI workloads"

EXTENDED = {NAMES_REQUEST: True}
"""The `opt` of routes that the contract does not know; those that it knows refuse in its words, to the byte."""

Schema = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One method of one path."""

    method: str
    path: str
    name: str
    """In snake case: the summary and the operation's id are made of it."""
    description: str
    answer: Schema | None = None
    """Schema of the 200; `None`: any JSON."""
    body: Schema | None = None
    further: Sequence[Schema] = ()
    """Parameters beside those in the path; the contract knows none."""
    body_fields: Mapping[str, Schema] = field(default_factory=dict)
    """Of a body that is any object: the fields that mean something; the contract names none."""
    media_type: str = "application/json"
    """Of the 200."""
    refusals: Mapping[str, str] = field(default_factory=dict)
    """Codes beside 200 and 422, and what they mean."""
    is_extended: bool = False
    """Whether the contract does not know it."""

    @property
    def parameters(self) -> list[str]:
        """Names of the parameters in the path."""
        return [part[1:-1] for part in self.path.split("/") if part.startswith("{")]

    @property
    def operation_id(self) -> str:
        """A name that is unique in the document."""
        path = self.path.replace("/", "_").replace("{", "_").replace("}", "_")
        return f"{self.name}{path}_{self.method}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Described:
    """What the documents say of one group of routes."""

    operations: tuple[Operation, ...]
    schemas: Mapping[str, Schema] = field(default_factory=dict)
    """The contract's."""
    extended_schemas: Mapping[str, Schema] = field(default_factory=dict)
    """Those that the contract does not know."""
    further_fields: Mapping[str, Schema] = field(default_factory=dict)
    """By schema of the contract's: the fields that came later."""


def ref(name: str) -> Schema:
    """Point to a component."""
    return {"$ref": f"#/components/schemas/{name}"}


def list_of(name: str, title: str) -> Schema:
    """Return the schema of an array of a component."""
    return {"items": ref(name), "type": "array", "title": title}


def titled(name: str) -> str:
    """Write a name in snake case as a title."""
    return name.replace("_", " ").title()


def text(title: str) -> Schema:
    """Return the schema of a text."""
    return {"type": "string", "title": title}


def object_of(title: str, properties: Mapping[str, Schema], required: list[str]) -> Schema:
    """Return the schema of an object."""
    return {"properties": dict(properties), "type": "object", "required": required, "title": title}


def query(name: str, description: str, **schema: Any) -> Schema:
    """Describe a parameter behind the question mark."""
    return {"name": name, "in": "query", "required": False, "description": description, "schema": schema}


def header(name: str, description: str) -> Schema:
    """Describe a header."""
    return {"name": name, "in": "header", "required": False, "description": description, "schema": {"type": "string"}}


ANY_OBJECT = {"type": "object", "additionalProperties": True}
INTEGER: Schema = {"type": "integer"}
TIME = {"anyOf": [{"type": "string", "format": "date-time"}, {"type": "null"}]}
ACCESS: Schema = {
    "anyOf": [{"type": "string", "enum": [access.value for access in Access]}, {"type": "null"}],
    "title": "Access",
    "description": "Who sees a service and may ask it, beside its owner; null: as the site has it.",
}
MAYBE_TEXT = {"anyOf": [{"type": "string"}, {"type": "null"}]}
MAYBE_INTEGER = {"anyOf": [{"type": "integer"}, {"type": "null"}]}
PAGING = (
    query("limit", "At most so many; the header Link leads to the next ones.", type="integer", minimum=1, maximum=MOST),
    query("after", "Where the page before ended, out of its header Link.", type="string"),
)
TAIL = query("tail", "The last so many.", type="integer", minimum=1, maximum=MOST)
NOT_FOUND = {"404": "There is no such service"}


def document(operations: Sequence[Operation], schemas: Mapping[str, Schema]) -> dict[str, Any]:
    """Return the document of these operations."""
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations:
        paths.setdefault(operation.path, {})[operation.method] = _described(operation)
    return {
        "openapi": "3.1.0",
        "info": {"title": TITLE, "description": DESCRIPTION, "version": VERSION},
        "paths": paths,
        "components": {"schemas": dict(schemas)},
    }


def _described(operation: Operation) -> dict[str, Any]:
    described: dict[str, Any] = {
        "summary": titled(operation.name),
        "description": operation.description,
        "operationId": operation.operation_id,
    }
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": text(titled(name))} for name in operation.parameters
    ]
    if parameters or operation.further:
        described["parameters"] = [*parameters, *operation.further]
    if operation.body is not None:
        fields = {"properties": dict(operation.body_fields)} if operation.body_fields else {}
        schema = {**operation.body, **fields}
        described["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema}}}
    described["responses"] = {"200": _response("Successful Response", operation.answer or {}, operation.media_type)}
    for code, meaning in operation.refusals.items():
        described["responses"][code] = _response(meaning, ref("Refusal"))
    if operation.parameters or operation.further or operation.body is not None:
        described["responses"]["422"] = _response("Validation Error", ref("HTTPValidationError"))
    return described


def _response(description: str, schema: Schema, media_type: str = "application/json") -> dict[str, Any]:
    return {"description": description, "content": {media_type: {"schema": schema}}}
