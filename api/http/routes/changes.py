"""…/status, …/declaration and PATCH /api/v1/services/{id}: how a service is, what is wanted of it, changing it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from litestar import Request, get, patch, post
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath
from msgspec import UNSET
from sqlalchemy import Row

from api.http.changes import MOST_TRIES, Changes, changeable, check_match, check_published, of_others, read_if_match
from api.http.launchable import Launchable
from api.http.openapi import (
    ACCESS,
    ANY_OBJECT,
    EXTENDED,
    INTEGER,
    MAYBE_INTEGER,
    NOT_FOUND,
    TIME,
    Described,
    Operation,
    header,
    object_of,
    ref,
    text,
)
from api.http.patches import Patch, read_patch, read_status_request
from api.http.recipes import Recipes
from api.http.services import Services
from api.http.wire import declaration, etag, service_response, status_of
from api.web.auth import principal_of
from api.web.belonging import check_recipe
from api.web.errors import ApiError
from api.web.principal import Principal
from api.web.responses import JsonResponse

log = logging.getLogger(__name__)


def change_routes(
    services: Services, changes: Changes, recipes: Recipes, launchable: Launchable, gateway: str
) -> list[HTTPRouteHandler]:
    """Make the handlers. `gateway`: its URL."""

    @get("/api/v1/services/{service_id:str}/status")
    async def get_service_status(service_id: FromPath[str], request: Request[Any, Any, Any]) -> dict[str, str]:
        row = await services.find(service_id, principal_of(request.scope))
        return {"status": "unknown" if row is None else status_of(row)}

    @get("/api/v1/services/{service_id:str}/declaration", opt=EXTENDED)
    async def get_service_declaration(service_id: FromPath[str], request: Request[Any, Any, Any]) -> JsonResponse:
        row = await services.find(service_id, principal_of(request.scope))
        if row is None:
            raise ApiError(404, "Service not found")
        return JsonResponse(declaration(row), headers={"ETag": etag(row.version)})

    @patch("/api/v1/services/{service_id:str}", opt=EXTENDED)
    async def change_service(service_id: FromPath[str], request: Request[Any, Any, Any]) -> JsonResponse:
        asked, principal = read_patch(await request.body()), principal_of(request.scope)
        wanted = read_if_match(request.headers.get("if-match"))
        for _ in range(MOST_TRIES):
            row = await changeable(services, service_id, principal)
            check_match(wanted, row, gateway)
            values, warnings = await _values(asked, row, recipes, launchable, principal)
            check_published(principal, row, values, services.sight)
            message = f"{asked.said()} of {row.name} changed."
            changed = await changes.change(row, values, "change", message) if values else row
            if changed is not None:
                if values:
                    log.info("service %s (%s) changed: %s", row.id, row.name, asked.said())
                return JsonResponse(
                    service_response(changed, gateway, warnings), headers={"ETag": etag(changed.version)}
                )
        raise of_others()

    @post("/api/v1/services/{service_id:str}/status", status_code=200, opt=EXTENDED)
    async def set_service_status(service_id: FromPath[str], request: Request[Any, Any, Any]) -> dict[str, str]:
        read_status_request(await request.body())
        principal = principal_of(request.scope)
        for _ in range(MOST_TRIES):
            row = await services.find(service_id, principal)
            if row is None:
                raise ApiError(404, "Service not found")
            services.sight.check_change(principal, row)
            answer = {"message": f"Service {service_id} cancelled", "service_id": row.id, "status": "cancelled"}
            if row.deletion_requested_at is not None or row.desired_state == "stopped":
                return answer
            stopped = await changes.change(row, {"desired_state": "stopped"}, "stop", f"{row.name} was stopped.")
            if stopped is not None:
                log.info("service %s (%s) stopped", row.id, row.name)
                return answer
        raise of_others()

    return [get_service_status, get_service_declaration, change_service, set_service_status]


async def _values(
    asked: Patch, row: Row[Any], recipes: Recipes, launchable: Launchable, principal: Principal
) -> tuple[dict[str, Any], Sequence[str]]:
    """Return the columns that change, and warnings, once what would come of them is known to be launchable."""
    values: dict[str, Any] = {}
    warnings: Sequence[str] = ()
    if asked.desired_state is not UNSET and asked.desired_state != row.desired_state:
        values["desired_state"] = asked.desired_state
    config = asked.applied(row.config)
    own = asked.replicas if asked.replicas is not UNSET else row.own_replicas
    if config != row.config or own != row.own_replicas:
        unknown = f"Its recipe {row.recipe_name[:200]!r} is not there any more. Put it back, or delete the service."
        recipe = await recipes.find(row.recipe_name, unknown)
        check_recipe(principal, recipe.path)
        spec = await launchable.check(recipe, config, row.config)
        warnings = spec.warnings or ()
        if asked.replicas is UNSET and config.get("replicas") != row.config.get("replicas"):
            own = None if config.get("replicas") is None else spec.replicas
    if config != row.config:
        values["config"] = config
    if own != row.own_replicas:
        values["replicas"] = own
    if asked.access is not UNSET and asked.access != row.access:
        values["access"] = asked.access
    return values, warnings


DESCRIBED = Described(
    operations=(
        Operation(
            method="get",
            path="/api/v1/services/{service_id}/status",
            name="get_service_status",
            description="Get current status of a service.",
        ),
        Operation(
            method="get",
            path="/api/v1/services/{service_id}/declaration",
            name="get_service_declaration",
            description="What is wanted of a service, exactly as it was declared; its ETag goes with a PATCH.",
            answer=ref("Declaration"),
            refusals=NOT_FOUND,
            is_extended=True,
        ),
        Operation(
            method="patch",
            path="/api/v1/services/{service_id}",
            name="change_service",
            description="Change what is wanted of a service. `config` is a JSON merge patch (RFC 7396): objects are "
            "merged, null removes a key, all else replaces. With If-Match only the version that was read is changed.",
            further=(header("If-Match", "The ETag of the version that is to be changed."),),
            body=ref("ServicePatch"),
            answer=ref("ServiceResponse"),
            refusals={
                **NOT_FOUND,
                "400": "A key of the config is misspelt",
                "409": "The service was deleted, or its recipe can't be used",
                "412": "The service has changed since: the answer shows it",
                "413": "The config would be too large",
            },
            is_extended=True,
        ),
        Operation(
            method="post",
            path="/api/v1/services/{service_id}/status",
            name="set_service_status",
            description="Stop a service; a PATCH of desired_state starts it again.",
            body=ref("StatusRequest"),
            answer=ref("StatusResponse"),
            refusals={**NOT_FOUND, "400": "Another word than cancelled", "409": "Changed by others all the time"},
            is_extended=True,
        ),
    ),
    extended_schemas={
        "ServicePatch": {
            "properties": {
                "config": {**ANY_OBJECT, "title": "Config", "description": "A JSON merge patch of the config."},
                "replicas": {"anyOf": [{"type": "integer", "minimum": 0, "maximum": 1000}, {"type": "null"}]},
                "desired_state": {"type": "string", "enum": ["running", "stopped"]},
                "access": ACCESS,
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
                "replicas": {**MAYBE_INTEGER, "description": "null: as many as the recipe says."},
                "desired_state": {"type": "string", "enum": ["running", "stopped"]},
                "deleted_at": TIME,
                "version": INTEGER,
                "access": ACCESS,
            },
            ["id", "name", "recipe_name", "config", "replicas", "desired_state", "deleted_at", "version"],
        ),
        "StatusRequest": object_of("StatusRequest", {"status": {"type": "string", "enum": ["cancelled"]}}, ["status"]),
        "StatusResponse": object_of(
            "StatusResponse",
            {"message": text("Message"), "service_id": text("Service Id"), "status": text("Status")},
            ["message", "service_id", "status"],
        ),
    },
)
"""For the documents."""
