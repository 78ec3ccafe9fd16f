"""/api/v1/service-groups."""

from __future__ import annotations

import logging
from typing import Any

from litestar import delete, get
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath
from sqlalchemy import Row

from api.http.groups import Groups, group_status, running_jobs
from api.http.recipes import Recipes
from api.http.services import Services
from api.web.errors import EXTENDED, ApiError

log = logging.getLogger(__name__)


def group_routes(services: Services, groups: Groups, recipes: Recipes) -> list[HTTPRouteHandler]:
    """Make the handlers."""

    async def found(key: str) -> tuple[Row[Any], dict[str, Any]]:
        group = await groups.find(key, await recipes.book())
        if group is None:
            raise ApiError(404, "Service group not found")
        return group

    @get("/api/v1/service-groups", opt=EXTENDED)
    async def list_service_groups() -> list[dict[str, Any]]:
        return await groups.list_all(await recipes.book())

    @get("/api/v1/service-groups/{group_id:str}", opt=EXTENDED)
    async def get_service_group(group_id: FromPath[str]) -> dict[str, Any]:
        return (await found(group_id))[1]

    @get("/api/v1/service-groups/{group_id:str}/status", opt=EXTENDED)
    async def get_service_group_status(group_id: FromPath[str]) -> dict[str, Any]:
        return group_status((await found(group_id))[1])

    @delete("/api/v1/service-groups/{group_id:str}", status_code=200, opt=EXTENDED)
    async def stop_service_group(group_id: FromPath[str]) -> dict[str, Any]:
        row, group = await found(group_id)
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
