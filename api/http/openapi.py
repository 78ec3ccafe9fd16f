"""The description of the API. The contract's document is held as data, so that it says the contract and no more;
the extended one (`openapi_extended`) adds what has grown since.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
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
    further: Sequence[Schema] = ()
    """Parameters beside those in the path."""
    media_type: str = "application/json"
    """Of the 200."""
    refusals: Mapping[str, str] = field(default_factory=dict)
    """Codes beside 200 and 422, and what they mean."""

    @property
    def parameters(self) -> list[str]:
        """Names of the parameters in the path."""
        return [part[1:-1] for part in self.path.split("/") if part.startswith("{")]

    @property
    def operation_id(self) -> str:
        """A name that is unique in the document."""
        path = self.path.replace("/", "_").replace("{", "_").replace("}", "_")
        return f"{self.name}{path}_{self.method}"


def ref(name: str) -> Schema:
    """Point to a component."""
    return {"$ref": f"#/components/schemas/{name}"}


def list_of(name: str, title: str) -> Schema:
    """Return the schema of an array of a component."""
    return {"items": ref(name), "type": "array", "title": title}


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
        answer=list_of("RecipeResponse", "Response List Recipes Api V1 Recipes Get"),
    ),
    Operation(
        method="get",
        path="/api/v1/recipes/{recipe_name}",
        name="get_recipe",
        description="Get details of a specific recipe.",
        answer=ref("RecipeResponse"),
    ),
    Operation(
        method="post",
        path="/api/v1/services",
        name="create_service",
        description="Create and start a new service using SLURM + Apptainer.",
        body=ref("ServiceRequest"),
        answer=ref("ServiceResponse"),
    ),
    Operation(
        method="get",
        path="/api/v1/services",
        name="list_services",
        description="List all running services.",
        answer=list_of("ServiceResponse", "Response List Services Api V1 Services Get"),
    ),
    Operation(
        method="get",
        path="/api/v1/services/{service_id}",
        name="get_service",
        description="Get details of a specific service.",
        answer=ref("ServiceResponse"),
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


def text(title: str) -> Schema:
    """Return the schema of a text."""
    return {"type": "string", "title": title}


def object_of(title: str, properties: Mapping[str, Schema], required: list[str]) -> Schema:
    """Return the schema of an object."""
    return {"properties": dict(properties), "type": "object", "required": required, "title": title}


ANY_OBJECT = {"type": "object", "additionalProperties": True}
SCHEMAS: dict[str, Schema] = {
    "HTTPValidationError": {
        "properties": {"detail": {"items": ref("ValidationError"), "type": "array", "title": "Detail"}},
        "type": "object",
        "title": "HTTPValidationError",
    },
    "RecipeResponse": object_of(
        "RecipeResponse",
        {name: text(_titled(name)) for name in ("name", "category", "description", "version", "path")},
        ["name", "category", "description", "version", "path"],
    ),
    "ServiceRequest": object_of(
        "ServiceRequest",
        {
            "recipe_name": text("Recipe Name"),
            "config": {**ANY_OBJECT, "title": "Config", "default": {}},
            "name": text("Name"),
        },
        ["recipe_name"],
    ),
    "ServiceResponse": object_of(
        "ServiceResponse",
        {
            "id": text("Id"),
            "name": text("Name"),
            "recipe_name": text("Recipe Name"),
            "status": text("Status"),
            "config": {**ANY_OBJECT, "title": "Config"},
            "created_at": text("Created At"),
        },
        ["id", "name", "recipe_name", "status", "config", "created_at"],
    ),
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


def contract() -> dict[str, Any]:
    """Return the contract's document."""
    return document(OPERATIONS, SCHEMAS)


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
        "summary": _titled(operation.name),
        "description": operation.description,
        "operationId": operation.operation_id,
    }
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": text(_titled(name))} for name in operation.parameters
    ]
    if parameters or operation.further:
        described["parameters"] = [*parameters, *operation.further]
    if operation.body is not None:
        described["requestBody"] = {"required": True, "content": {"application/json": {"schema": operation.body}}}
    described["responses"] = {"200": _response("Successful Response", operation.answer or {}, operation.media_type)}
    for code, meaning in operation.refusals.items():
        described["responses"][code] = _response(meaning, ref("Refusal"))
    if operation.parameters or operation.further or operation.body is not None:
        described["responses"]["422"] = _response("Validation Error", ref("HTTPValidationError"))
    return described


def _response(description: str, schema: Schema, media_type: str = "application/json") -> dict[str, Any]:
    return {"description": description, "content": {media_type: {"schema": schema}}}
