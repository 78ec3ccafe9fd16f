"""The description of the API. The contract's document is held as data, so that it says the contract and no more;
the extended one adds what has grown since.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

TITLE = "AI Factory Server Service"
VERSION = "1.0.0"
DESCRIPTION = "SLURM + Apptainer orchestration for AI workloads"

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

    @property
    def parameters(self) -> list[str]:
        """Names of the parameters in the path."""
        return [part[1:-1] for part in self.path.split("/") if part.startswith("{")]

    @property
    def operation_id(self) -> str:
        """A name that is unique in the document."""
        path = self.path.replace("/", "_").replace("{", "_").replace("}", "_")
        return f"{self.name}{path}_{self.method}"


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _list_of(name: str, title: str) -> Schema:
    return {"items": _ref(name), "type": "array", "title": title}


def _titled(name: str) -> str:
    return name.replace("_", " ").title()


OPERATIONS = (
    Operation(method="get", path="/", name="root", description="Root endpoint with service information."),
    Operation(method="get", path="/health", name="health", description="Health check endpoint."),
    Operation(
        method="get",
        path="/api/v1/recipes",
        name="list_recipes",
        description="List all available recipes.",
        answer=_list_of("RecipeResponse", "Response List Recipes Api V1 Recipes Get"),
    ),
    Operation(
        method="get",
        path="/api/v1/recipes/{recipe_name}",
        name="get_recipe",
        description="Get details of a specific recipe.",
        answer=_ref("RecipeResponse"),
    ),
    Operation(
        method="post",
        path="/api/v1/services",
        name="create_service",
        description="Create and start a new service using SLURM + Apptainer.",
        body=_ref("ServiceRequest"),
        answer=_ref("ServiceResponse"),
    ),
    Operation(
        method="get",
        path="/api/v1/services",
        name="list_services",
        description="List all running services.",
        answer=_list_of("ServiceResponse", "Response List Services Api V1 Services Get"),
    ),
    Operation(
        method="get",
        path="/api/v1/services/{service_id}",
        name="get_service",
        description="Get details of a specific service.",
        answer=_ref("ServiceResponse"),
    ),
    Operation(
        method="delete",
        path="/api/v1/services/{service_id}",
        name="stop_service",
        description="Stop a running service by cancelling the SLURM job.",
    ),
    Operation(
        method="get",
        path="/api/v1/services/{service_id}/logs",
        name="get_service_logs",
        description="Get logs from a service.",
    ),
    Operation(
        method="get",
        path="/api/v1/services/{service_id}/status",
        name="get_service_status",
        description="Get current status of a service.",
    ),
    Operation(
        method="get",
        path="/api/v1/vllm/services",
        name="list_vllm_services",
        description="List all running VLLM services.",
    ),
    Operation(
        method="get",
        path="/api/v1/vllm/{service_id}/models",
        name="get_vllm_models",
        description="Get available models served by a running VLLM service.",
    ),
    Operation(
        method="post",
        path="/api/v1/vllm/{service_id}/prompt",
        name="prompt_vllm_service",
        description="Send a prompt to a running VLLM service.",
        body={"type": "object", "additionalProperties": True, "title": "Request"},
    ),
)

EXTRA_OPERATIONS: tuple[Operation, ...] = ()
"""Operations that the contract does not know; only the extended document shows them."""


def _text(title: str) -> Schema:
    return {"type": "string", "title": title}


def _object(title: str, properties: Mapping[str, Schema], required: list[str]) -> Schema:
    return {"properties": dict(properties), "type": "object", "required": required, "title": title}


_ANY_OBJECT = {"type": "object", "additionalProperties": True}
_SCHEMAS: dict[str, Schema] = {
    "HTTPValidationError": {
        "properties": {"detail": {"items": _ref("ValidationError"), "type": "array", "title": "Detail"}},
        "type": "object",
        "title": "HTTPValidationError",
    },
    "RecipeResponse": _object(
        "RecipeResponse",
        {name: _text(_titled(name)) for name in ("name", "category", "description", "version", "path")},
        ["name", "category", "description", "version", "path"],
    ),
    "ServiceRequest": _object(
        "ServiceRequest",
        {
            "recipe_name": _text("Recipe Name"),
            "config": {**_ANY_OBJECT, "title": "Config", "default": {}},
            "name": _text("Name"),
        },
        ["recipe_name"],
    ),
    "ServiceResponse": _object(
        "ServiceResponse",
        {
            "id": _text("Id"),
            "name": _text("Name"),
            "recipe_name": _text("Recipe Name"),
            "status": _text("Status"),
            "config": {**_ANY_OBJECT, "title": "Config"},
            "created_at": _text("Created At"),
        },
        ["id", "name", "recipe_name", "status", "config", "created_at"],
    ),
    "ValidationError": _object(
        "ValidationError",
        {
            "loc": {
                "items": {"anyOf": [{"type": "string"}, {"type": "integer"}]},
                "type": "array",
                "title": "Location",
            },
            "msg": _text("Message"),
            "type": _text("Error Type"),
        },
        ["loc", "msg", "type"],
    ),
}
_FURTHER_FIELDS: dict[str, Schema] = {
    "message": {**_text("Message"), "description": "What matters most now, for people."},
    "conditions": {"type": "array", "items": _ANY_OBJECT, "title": "Conditions"},
    "replicas": {
        "anyOf": [{"type": "integer"}, {"type": "null"}],
        "title": "Replicas",
        "description": "How many are wanted; null: as many as the recipe says.",
    },
    "ready_replicas": {"type": "integer", "title": "Ready Replicas"},
    "generation": {"type": "integer", "title": "Generation"},
    "observed_generation": {"type": "integer", "title": "Observed Generation"},
    "endpoint": {"anyOf": [{"type": "string"}, {"type": "null"}], "title": "Endpoint"},
    "deleted_at": {"anyOf": [{"type": "string"}, {"type": "null"}], "title": "Deleted At"},
}


def contract() -> dict[str, Any]:
    """Return the contract's document."""
    return _document(OPERATIONS, _SCHEMAS)


def extended() -> dict[str, Any]:
    """Return the document of everything that is served."""
    schemas = copy.deepcopy(_SCHEMAS)
    schemas["ServiceResponse"]["properties"].update(_FURTHER_FIELDS)
    document = _document((*OPERATIONS, *EXTRA_OPERATIONS), schemas)
    document["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    document["security"] = [{}, {"key": []}]
    return document


def _document(operations: tuple[Operation, ...], schemas: Mapping[str, Schema]) -> dict[str, Any]:
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
        "summary": _titled(operation.name),
        "description": operation.description,
        "operationId": operation.operation_id,
    }
    if operation.parameters:
        described["parameters"] = [
            {"name": name, "in": "path", "required": True, "schema": _text(_titled(name))}
            for name in operation.parameters
        ]
    if operation.body is not None:
        described["requestBody"] = {"required": True, "content": {"application/json": {"schema": operation.body}}}
    described["responses"] = {"200": _response("Successful Response", operation.answer or {})}
    if operation.parameters or operation.body is not None:
        described["responses"]["422"] = _response("Validation Error", _ref("HTTPValidationError"))
    return described


def _response(description: str, schema: Schema) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": schema}}}
