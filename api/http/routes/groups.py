"""/api/v1/service-groups."""

from __future__ import annotations

import logging
from typing import Any

from litestar import Request, delete, get
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath
from sqlalchemy import Row

from api.http.groups import Groups, group_status, running_jobs
from api.http.openapi import ANY_OBJECT, EXTENDED, INTEGER, Described, Operation, list_of, object_of, ref, text
from api.http.recipes import Recipes
from api.http.services import Services
from api.web.auth import principal_of
from api.web.errors import ApiError

log = logging.getLogger(__name__)


def group_routes(services: Services, groups: Groups, recipes: Recipes) -> list[HTTPRouteHandler]:
    """Make the handlers."""

    async def found(key: str, request: Request[Any, Any, Any]) -> tuple[Row[Any], dict[str, Any]]:
        group = await groups.find(key, await recipes.book(), principal_of(request.scope))
        if group is None:
            raise ApiError(404, "Service group not found")
        return group

    @get("/api/v1/service-groups", opt=EXTENDED)
    async def list_service_groups(request: Request[Any, Any, Any]) -> list[dict[str, Any]]:
        return await groups.list_all(await recipes.book(), principal_of(request.scope))

    @get("/api/v1/service-groups/{group_id:str}", opt=EXTENDED)
    async def get_service_group(group_id: FromPath[str], request: Request[Any, Any, Any]) -> dict[str, Any]:
        return (await found(group_id, request))[1]

    @get("/api/v1/service-groups/{group_id:str}/status", opt=EXTENDED)
    async def get_service_group_status(group_id: FromPath[str], request: Request[Any, Any, Any]) -> dict[str, Any]:
        return group_status((await found(group_id, request))[1])

    @delete("/api/v1/service-groups/{group_id:str}", status_code=200, opt=EXTENDED)
    async def stop_service_group(group_id: FromPath[str], request: Request[Any, Any, Any]) -> dict[str, Any]:
        row, group = await found(group_id, request)
        services.sight.check_change(principal_of(request.scope), row)
        jobs = []
        if row.deletion_requested_at is None and await services.delete(row.id, row.name):
            jobs = running_jobs(group)
            log.info("service %s (%s) deleted", row.id, row.name)
        return {
            "success": True,
            "message": f"Service group {group_id} stopped successfully",
            "group_id": row.id,
            "replicas_stopped": len(jobs),
            "jobs_cancelled": jobs,
        }

    return [list_service_groups, get_service_group, get_service_group_status, stop_service_group]


NO_GROUP = {"404": "There is no such service of several replicas"}

DESCRIBED = Described(
    operations=(
        Operation(
            method="get",
            path="/api/v1/service-groups",
            name="list_service_groups",
            description="Services of several replicas, each with its replicas and their jobs.",
            answer=list_of("ServiceGroup", "Service Groups"),
            is_extended=True,
        ),
        Operation(
            method="get",
            path="/api/v1/service-groups/{group_id}",
            name="get_service_group",
            description="A service of several replicas, with these and their jobs.",
            answer=ref("ServiceGroup"),
            refusals=NO_GROUP,
            is_extended=True,
        ),
        Operation(
            method="get",
            path="/api/v1/service-groups/{group_id}/status",
            name="get_service_group_status",
            description="How many replicas of a group are healthy, starting, pending or failed.",
            answer=ref("ServiceGroupStatus"),
            refusals=NO_GROUP,
            is_extended=True,
        ),
        Operation(
            method="delete",
            path="/api/v1/service-groups/{group_id}",
            name="stop_service_group",
            description="Stop all replicas of a group, for good.",
            refusals=NO_GROUP,
            is_extended=True,
        ),
    ),
    extended_schemas={
        "ServiceGroup": object_of(
            "ServiceGroup",
            {
                "id": text("Id"),
                "name": text("Name"),
                "type": {"type": "string", "enum": ["replica_group"]},
                "recipe_name": text("Recipe Name"),
                "num_nodes": INTEGER,
                "replicas_per_node": INTEGER,
                "total_replicas": INTEGER,
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
                **{f"{word}_replicas": INTEGER for word in ("total", "healthy", "starting", "pending", "failed")},
            },
            [
                "group_id",
                "overall_status",
                "total_replicas",
                "healthy_replicas",
                "starting_replicas",
                "failed_replicas",
            ],
        ),
    },
)
"""For the documents."""
