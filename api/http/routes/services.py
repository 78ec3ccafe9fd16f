"""/api/v1/services."""

from __future__ import annotations

import logging
import time
from typing import Any

from litestar import Request, delete, get, post
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath

from api.http.idempotency import read_once
from api.http.launchable import Launchable
from api.http.listing import ORDERS, WORDS, read_listing
from api.http.openapi import (
    ACCESS,
    ANY_OBJECT,
    MAYBE_TEXT,
    PAGING,
    Described,
    Operation,
    header,
    list_of,
    object_of,
    query,
    ref,
    text,
)
from api.http.paging import next_link
from api.http.requests import read_service_request
from api.http.services import NewService, Services
from api.http.waiting import read_wait, until_settled
from api.http.wire import etag, service_response
from api.web.auth import principal_of
from api.web.belonging import access_of_new
from api.web.change_feed import ChangeFeed
from api.web.disconnect import unless_disconnected
from api.web.errors import ApiError
from api.web.query import Query
from api.web.responses import JsonResponse

log = logging.getLogger(__name__)


def service_routes(
    services: Services, launchable: Launchable, feed: ChangeFeed, gateway: str
) -> list[HTTPRouteHandler]:
    """Make the handlers. `gateway`: its URL."""

    @post("/api/v1/services", status_code=200)
    async def create_service(request: Request[Any, Any, Any]) -> JsonResponse:
        asked = read_service_request(await request.body())
        asking, principal = Query(request), principal_of(request.scope)
        is_trial, seconds = asking.flag("dry_run") is True, read_wait(asking)
        once = None if is_trial else read_once(request.headers.get("idempotency-key"), asked, principal)
        created = await services.answered(once) if once is not None else None
        if created is None:
            recipe = await launchable.recipe(asked.recipe_name, principal)
            spec = await launchable.check(recipe, asked.config)
            wish = NewService(
                request=asked,
                recipe=recipe.name,
                owner=principal.owner,
                project=principal.project,
                access=access_of_new(principal, asked.access, services.sight.default),
                replicas=None if asked.config.get("replicas") is None else spec.replicas,
                warnings=spec.warnings or (),
            )
            if is_trial:
                return JsonResponse(wish.answer(wish.row(), time.time()))
            created, is_new = await services.create(wish, once)
            if is_new:
                log.info("service %s (%s) created", created.id, created.name)
        if seconds is not None:
            waiting = until_settled(services, feed, created.id, seconds, principal)
            row = await unless_disconnected(request.receive, waiting)
            created = created if row is None else service_response(row, gateway, created.warnings)
        return JsonResponse(created, headers={"ETag": etag(created.version)})

    @get("/api/v1/services")
    async def list_services(request: Request[Any, Any, Any]) -> JsonResponse:
        principal = principal_of(request.scope)
        listing = read_listing(Query(request)) if request.scope["query_string"] else None
        if listing is None:
            return JsonResponse([service_response(row, gateway) for row in await services.list_all(principal)])
        rows, cursor = await services.list_page(listing, principal)
        return JsonResponse([service_response(row, gateway) for row in rows], headers=next_link(request, cursor))

    @get("/api/v1/services/{service_id:str}")
    async def get_service(service_id: FromPath[str], request: Request[Any, Any, Any]) -> JsonResponse:
        row = await services.find(service_id, principal_of(request.scope))
        if row is None:
            raise ApiError(404, "Service not found")
        return JsonResponse(service_response(row, gateway), headers={"ETag": etag(row.version)})

    @delete("/api/v1/services/{service_id:str}", status_code=200)
    async def stop_service(service_id: FromPath[str], request: Request[Any, Any, Any]) -> dict[str, str]:
        principal = principal_of(request.scope)
        row = await services.find_deletable(service_id, principal)
        if row is None:
            raise ApiError(404, "Service not found or failed to stop")
        services.sight.check_change(principal, row)
        if row.deletion_requested_at is None and await services.delete(row.id, row.name):
            log.info("service %s (%s) deleted", row.id, row.name)
        return {"message": f"Service {service_id} stopped successfully"}

    return [
        create_service,
        list_services,
        get_service,
        stop_service,
    ]


DESCRIBED = Described(
    operations=(
        Operation(
            method="post",
            path="/api/v1/services",
            name="create_service",
            description="Create and start a new service using SLURM + Apptainer.",
            body=ref("ServiceRequest"),
            answer=ref("ServiceResponse"),
            further=(
                header("Idempotency-Key", "The same request under the same key is done once; kept for 24 hours."),
                query("dry_run", "Check it and answer, but make nothing.", type="boolean"),
                query("wait", "Answer when the service is ready or has ended.", type="string", enum=["ready"]),
                query(
                    "timeout",
                    "Answer after so many seconds, however it is then; 300 unless told.",
                    type="number",
                    minimum=0,
                    maximum=3600,
                ),
            ),
        ),
        Operation(
            method="get",
            path="/api/v1/services",
            name="list_services",
            description="List all running services.",
            answer=list_of("ServiceResponse", "Response List Services Api V1 Services Get"),
            further=(
                query(
                    "status", "Only with these status words.", type="array", items={"type": "string", "enum": [*WORDS]}
                ),
                query("recipe", "Only of this recipe, by its path or its stem.", type="string"),
                query("name", "Only with this name; * stands for any characters.", type="string"),
                query("ready", "Only those that answer now, or that don't.", type="boolean"),
                query(
                    "deleted",
                    "Only deleted ones, or living ones; unless told: living ones, and those of which something is left "
                    "on the cluster.",
                    type="boolean",
                ),
                query("sort", "The order; a hyphen turns it round.", type="string", enum=[*ORDERS]),
                *PAGING,
            ),
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
    ),
    schemas={
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
    },
    further_fields={
        "ServiceRequest": {"access": ACCESS},
        "ServiceResponse": {
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
            "warnings": {
                "type": "array",
                "items": {"type": "string"},
                "title": "Warnings",
                "description": "What is probably not meant in the config; in answers to what is written.",
            },
            "owner": {**MAYBE_TEXT, "description": "Whose it is; null: the operator's."},
            "project": MAYBE_TEXT,
            "access": ACCESS,
            "version": {
                "type": "integer",
                "title": "Version",
                "description": "Counts the changes of what is wanted; in quotes it is the ETag.",
            },
        },
    },
)
"""For the documents."""
