"""The document of all that is served: the contract's operations with what they take beside it, and all others."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

from api.http.history import STEPS, TRUTHS, TYPES
from api.http.listing import ORDERS, WORDS
from api.http.openapi import ANY_OBJECT, OPERATIONS, SCHEMAS, Operation, Schema, document, list_of, object_of, ref, text
from api.http.paging import MOST


def _query(name: str, description: str, **schema: Any) -> Schema:
    return {"name": name, "in": "query", "required": False, "description": description, "schema": schema}


def _header(name: str, description: str) -> Schema:
    return {"name": name, "in": "header", "required": False, "description": description, "schema": {"type": "string"}}


_PAGING = (
    _query(
        "limit", "At most so many; the header Link leads to the next ones.", type="integer", minimum=1, maximum=MOST
    ),
    _query("after", "Where the page before ended, out of its header Link.", type="string"),
)
_TAIL = _query("tail", "The last so many.", type="integer", minimum=1, maximum=MOST)
_NOT_FOUND = {"404": "There is no such service"}
_NO_GROUP = {"404": "There is no such service of several replicas"}

FURTHER: dict[str, tuple[Schema, ...]] = {
    "create_service": (
        _header("Idempotency-Key", "The same request under the same key is done once; kept for 24 hours."),
        _query("wait", "Answer when the service is ready or has ended.", type="string", enum=["ready"]),
        _query(
            "timeout",
            "Answer after so many seconds, however it is then; 300 unless told.",
            type="number",
            minimum=0,
            maximum=3600,
        ),
    ),
    "list_services": (
        _query("status", "Only with these status words.", type="array", items={"type": "string", "enum": [*WORDS]}),
        _query("recipe", "Only of this recipe, by its path or its stem.", type="string"),
        _query("name", "Only with this name; * stands for any characters.", type="string"),
        _query("ready", "Only those that answer now, or that don't.", type="boolean"),
        _query("deleted", "Only deleted ones, or living ones.", type="boolean"),
        _query("sort", "The order; a hyphen turns it round.", type="string", enum=[*ORDERS]),
        *_PAGING,
    ),
    "prompt_vllm_service": (
        _query(
            "stream",
            "Answer bit by bit: server-sent events, delta with a piece of the text and done with the whole answer. "
            "What is refused before the first piece is JSON as ever.",
            type="boolean",
        ),
    ),
    "get_service_logs": (
        _query("tail", "Only the last so many lines of each file.", type="integer", minimum=0, maximum=100_000),
        _query("replica", "Only of this replica.", type="integer", minimum=0, maximum=1000),
        _query("attempt", "Of this attempt instead of the newest; ended ones too.", type="integer", minimum=1),
        _query("follow", "Go on as they grow: server-sent events instead of JSON.", type="boolean"),
        _query("timeout", "Follow for so many seconds.", type="number", minimum=0, maximum=86400),
        _header("Last-Event-ID", "Follow on after this event."),
    ),
}
"""Parameters, by operation, that the contract's operations take beside it."""

EXTRA_OPERATIONS = (
    Operation(
        method="get",
        path="/api/v1/services/{service_id}/declaration",
        name="get_service_declaration",
        description="What is wanted of a service, exactly as it was declared; its ETag goes with a PATCH.",
        answer=ref("Declaration"),
        refusals=_NOT_FOUND,
    ),
    Operation(
        method="patch",
        path="/api/v1/services/{service_id}",
        name="change_service",
        description="Change what is wanted of a service. `config` is a JSON merge patch (RFC 7396): objects are "
        "merged, null removes a key, all else replaces. With If-Match only the version that was read is changed.",
        further=(_header("If-Match", "The ETag of the version that is to be changed."),),
        body=ref("ServicePatch"),
        answer=ref("ServiceResponse"),
        refusals={
            **_NOT_FOUND,
            "409": "The service was deleted, or its recipe can't be used",
            "412": "The service has changed since: the answer shows it",
            "413": "The config would be too large",
        },
    ),
    Operation(
        method="post",
        path="/api/v1/services/{service_id}/status",
        name="set_service_status",
        description="Stop a service; a PATCH of desired_state starts it again.",
        body=ref("StatusRequest"),
        answer=ref("StatusResponse"),
        refusals={**_NOT_FOUND, "400": "Another word than cancelled", "409": "Changed by others all the time"},
    ),
    Operation(
        method="get",
        path="/api/v1/services/{service_id}/events",
        name="list_service_events",
        description="What happened to a service, and what its users did, the newest last.",
        further=(
            _query("type", "Only of this type.", type="string", enum=["Normal", "Warning"]),
            _query("source", "Only the controller's, or what users did.", type="string", enum=["controller", "user"]),
            _query("reason", "Only for this reason.", type="string"),
            _TAIL,
            *_PAGING,
        ),
        answer=list_of("Event", "Events"),
        refusals=_NOT_FOUND,
    ),
    Operation(
        method="get",
        path="/api/v1/services/{service_id}/attempts",
        name="list_service_attempts",
        description="Every try at running a replica: its Slurm job, its steps and its outcome, the newest last.",
        further=(
            _query("replica", "Only of this replica.", type="integer", minimum=0, maximum=1000),
            _query("open", "Only those under way, or those that have ended.", type="boolean"),
            _query("outcome", "Only those that ended like this.", type="string"),
            _TAIL,
            *_PAGING,
        ),
        answer=list_of("Attempt", "Attempts"),
        refusals=_NOT_FOUND,
    ),
    Operation(
        method="get",
        path="/api/v1/services/{service_id}/conditions",
        name="list_service_conditions",
        description="What is true of a service now, since when, and why.",
        further=(
            _query("type", "Only of these types.", type="array", items={"type": "string", "enum": [*TYPES]}),
            _query("status", "Only with these values.", type="array", items={"type": "string", "enum": [*TRUTHS]}),
        ),
        answer=list_of("Condition", "Conditions"),
        refusals=_NOT_FOUND,
    ),
    Operation(
        method="get",
        path="/api/v1/watch",
        name="watch",
        description="Server-sent events: created, changed and deleted, each with the service as it is then, under the "
        "number of the change; reset: forget what you know, all there is follows.",
        further=(
            _header("Last-Event-ID", "Go on after this number."),
            _query(
                "after",
                "The same; 0: begin with all there is. Left out: only what changes from now on.",
                type="integer",
                minimum=0,
            ),
            _query("service", "Only this service, by id or name.", type="string"),
            _query("timeout", "End after so many seconds.", type="number", minimum=0, maximum=86400),
        ),
        media_type="text/event-stream",
        answer={"type": "string"},
        refusals=_NOT_FOUND,
    ),
    Operation(
        method="get",
        path="/api/v1/service-groups",
        name="list_service_groups",
        description="Services of several replicas, each with its replicas and their jobs.",
        answer=list_of("ServiceGroup", "Service Groups"),
    ),
    Operation(
        method="get",
        path="/api/v1/service-groups/{group_id}",
        name="get_service_group",
        description="A service of several replicas, with these and their jobs.",
        answer=ref("ServiceGroup"),
        refusals=_NO_GROUP,
    ),
    Operation(
        method="get",
        path="/api/v1/service-groups/{group_id}/status",
        name="get_service_group_status",
        description="How many replicas of a group are healthy, starting, pending or failed.",
        answer=ref("ServiceGroupStatus"),
        refusals=_NO_GROUP,
    ),
    Operation(
        method="delete",
        path="/api/v1/service-groups/{group_id}",
        name="stop_service_group",
        description="Stop all replicas of a group, for good.",
        refusals=_NO_GROUP,
    ),
    Operation(
        method="get",
        path="/api/v1/services/targets",
        name="list_service_targets",
        description="Where the ready replicas answer, for Prometheus' HTTP service discovery.",
    ),
    Operation(
        method="get",
        path="/api/v1/services/{service_id}/metrics",
        name="get_service_metrics",
        description="Figures of a service and of its engines, in Prometheus' text format.",
        media_type="text/plain",
        answer={"type": "string"},
        refusals=_NOT_FOUND,
    ),
)
"""Operations that the contract does not know."""

_FURTHER_FIELDS: dict[str, Schema] = {
    "message": {**text("Message"), "description": "What matters most now, for people."},
    "conditions": {"type": "array", "items": ANY_OBJECT, "title": "Conditions"},
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
    "version": {
        "type": "integer",
        "title": "Version",
        "description": "Counts the changes of what is wanted; in quotes it is the ETag.",
    },
}

_INTEGER: Schema = {"type": "integer"}
_TIME = {"anyOf": [{"type": "string", "format": "date-time"}, {"type": "null"}]}
_MAYBE_TEXT = {"anyOf": [{"type": "string"}, {"type": "null"}]}
_MAYBE_INTEGER = {"anyOf": [{"type": "integer"}, {"type": "null"}]}
_FURTHER_SCHEMAS: dict[str, Schema] = {
    "Refusal": {
        "properties": {"detail": text("Detail"), "request_id": text("Request Id")},
        "type": "object",
        "required": ["detail"],
        "title": "Refusal",
    },
    "ServicePatch": {
        "properties": {
            "config": {**ANY_OBJECT, "title": "Config", "description": "A JSON merge patch of the config."},
            "replicas": {"anyOf": [{"type": "integer", "minimum": 0, "maximum": 1000}, {"type": "null"}]},
            "desired_state": {"type": "string", "enum": ["running", "stopped"]},
        },
        "type": "object",
        "additionalProperties": False,
        "title": "ServicePatch",
    },
    "Declaration": object_of(
        "Declaration",
        {
            "id": {"type": "string"},
            "name": {"type": "string"},
            "recipe_name": {"type": "string"},
            "config": {**ANY_OBJECT, "title": "Config"},
            "replicas": {**_MAYBE_INTEGER, "description": "null: as many as the recipe says."},
            "desired_state": {"type": "string", "enum": ["running", "stopped"]},
            "deleted_at": _TIME,
            "version": _INTEGER,
        },
        ["id", "name", "recipe_name", "config", "replicas", "desired_state", "deleted_at", "version"],
    ),
    "StatusRequest": object_of("StatusRequest", {"status": {"type": "string", "enum": ["cancelled"]}}, ["status"]),
    "StatusResponse": object_of(
        "StatusResponse",
        {"message": text("Message"), "service_id": text("Service Id"), "status": text("Status")},
        ["message", "service_id", "status"],
    ),
    "Event": object_of(
        "Event",
        {
            "source": {"type": "string", "enum": ["controller", "user"]},
            "type": {"type": "string"},
            "reason": {"type": "string"},
            "message": {"type": "string"},
            "count": _INTEGER,
            "first_at": {"type": "string", "format": "date-time"},
            "last_at": {"type": "string", "format": "date-time"},
        },
        ["source", "type", "reason", "message", "count", "first_at", "last_at"],
    ),
    "Attempt": object_of(
        "Attempt",
        {
            "token": {"type": "string"},
            "replica": _INTEGER,
            "attempt": {**_INTEGER, "description": "Counted from 1 for each replica."},
            "lane": {"type": "string"},
            "generation": _INTEGER,
            "state": {"type": "string", "enum": ["pending", "starting", "ready", "ended"]},
            "job_id": _MAYBE_INTEGER,
            "node": _MAYBE_TEXT,
            "host": _MAYBE_TEXT,
            "port": _MAYBE_INTEGER,
            **{f"{step}_at": _TIME for step in STEPS},
            "outcome": _MAYBE_TEXT,
            "message": {"type": "string"},
            "exit_code": _MAYBE_INTEGER,
        },
        ["token", "replica", "attempt", "state", "job_id", "outcome", "message"],
    ),
    "ServiceGroup": object_of(
        "ServiceGroup",
        {
            "id": text("Id"),
            "name": text("Name"),
            "type": {"type": "string", "enum": ["replica_group"]},
            "recipe_name": text("Recipe Name"),
            "num_nodes": _INTEGER,
            "replicas_per_node": _INTEGER,
            "total_replicas": _INTEGER,
            "node_jobs": {"type": "array", "items": ANY_OBJECT},
            "config": ANY_OBJECT,
            "created_at": text("Created At"),
            "status": text("Status"),
        },
        [
            *("id", "name", "type", "recipe_name", "num_nodes", "replicas_per_node", "total_replicas", "node_jobs"),
            *("config", "created_at", "status"),
        ],
    ),
    "ServiceGroupStatus": object_of(
        "ServiceGroupStatus",
        {
            "group_id": text("Group Id"),
            "overall_status": {"type": "string", "enum": ["healthy", "partial", "starting", "failed", "degraded"]},
            **{f"{word}_replicas": _INTEGER for word in ("total", "healthy", "starting", "pending", "failed")},
        },
        ["group_id", "overall_status", "total_replicas", "healthy_replicas", "starting_replicas", "failed_replicas"],
    ),
    "Condition": object_of(
        "Condition",
        {
            "type": {"type": "string"},
            "status": {"type": "string", "enum": [*TRUTHS]},
            "reason": {"type": "string"},
            "message": {"type": "string"},
            "since": {"type": "string", "format": "date-time"},
            "generation": _INTEGER,
        },
        ["type", "status", "reason", "message", "since", "generation"],
    ),
}


def operations() -> tuple[Operation, ...]:
    """Return everything that is served under the contract's paths and beside them."""
    known = (dataclasses.replace(one, further=FURTHER.get(one.name, ())) for one in OPERATIONS)
    return (*known, *EXTRA_OPERATIONS)


def extended() -> dict[str, Any]:
    """Return the document of everything that is served."""
    schemas = copy.deepcopy(SCHEMAS)
    schemas["ServiceResponse"]["properties"].update(_FURTHER_FIELDS)
    found = document(operations(), {**schemas, **_FURTHER_SCHEMAS})
    found["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    found["security"] = [{}, {"key": []}]
    return found
