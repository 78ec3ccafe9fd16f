"""/api/v1/services."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any

from litestar import Request, delete, get, post
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath

from api.contract.recipes.resolve import ConfigError, resolve
from api.contract.settings import SlurmSettings
from api.contract.status import explanation
from api.http.bodies import config_problem, read_service_request
from api.http.errors import ApiError, InvalidError
from api.http.logs import read_logs
from api.http.recipes import Recipes
from api.http.request_id import request_id
from api.http.services import Services
from api.http.wire import ServiceResponse, conditions_of, iso, service_response, shown_config, status_of

log = logging.getLogger(__name__)


def service_routes(services: Services, recipes: Recipes, site: SlurmSettings, run_dir: Path) -> list[HTTPRouteHandler]:
    """Make the handlers."""

    @post("/api/v1/services", status_code=200)
    async def create_service(request: Request[Any, Any, Any]) -> ServiceResponse:
        asked = read_service_request(await request.body())
        unknown = f"Recipe {asked.recipe_name[:200]!r} not found. GET /api/v1/recipes lists those that there are."
        recipe = await recipes.find(asked.recipe_name, unknown)
        try:
            spec = resolve(recipe, asked.config, replicas=None, site=site)
        except ConfigError as error:
            raise InvalidError(config_problem(asked.config, error.key, error.message)) from None
        replicas = None if asked.config.get("replicas") is None else spec.replicas
        service_id, name, created_at = await services.create(asked, recipe.name, replicas)
        log.info("service %s (%s) created", service_id, name, extra={"request_id": request_id(request.scope)})
        return ServiceResponse(
            id=service_id,
            name=name,
            recipe_name=asked.recipe_name,
            status="pending",
            config=shown_config(asked.config),
            created_at=iso(created_at),
            replicas=replicas,
        )

    @get("/api/v1/services")
    async def list_services() -> list[ServiceResponse]:
        return [service_response(row) for row in await services.list_all()]

    @get("/api/v1/services/{service_id:str}")
    async def get_service(service_id: FromPath[str]) -> ServiceResponse:
        row = await services.find(service_id)
        if row is None:
            raise ApiError(404, "Service not found")
        return service_response(row)

    @delete("/api/v1/services/{service_id:str}", status_code=200)
    async def stop_service(service_id: FromPath[str], request: Request[Any, Any, Any]) -> dict[str, str]:
        row = await services.find(service_id)
        if row is None:
            raise ApiError(404, "Service not found or failed to stop")
        if row.deletion_requested_at is None and await services.delete(row.id, row.name):
            log.info("service %s (%s) deleted", row.id, row.name, extra={"request_id": request_id(request.scope)})
        return {"message": f"Service {service_id} stopped successfully"}

    @get("/api/v1/services/{service_id:str}/logs")
    async def get_service_logs(service_id: FromPath[str]) -> dict[str, str]:
        row, tokens = await services.find_with_tokens(service_id)
        if row is None:
            return {"logs": f"Service {service_id} not found: there are no logs."}
        if not tokens:
            return {"logs": f"No logs yet: no job was submitted. {explanation(conditions_of(row))}".strip()}
        return {"logs": await asyncio.to_thread(read_logs, run_dir, tokens)}

    @get("/api/v1/services/{service_id:str}/status")
    async def get_service_status(service_id: FromPath[str]) -> dict[str, str]:
        row = await services.find(service_id)
        return {"status": "unknown" if row is None else status_of(row)}

    return [
        create_service,
        list_services,
        get_service,
        stop_service,
        get_service_logs,
        get_service_status,
    ]
