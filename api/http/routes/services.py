"""/api/v1/services."""

from __future__ import annotations

import logging
from typing import Any

from litestar import Request, delete, get, post
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath

from api.contract.recipes.errors import ConfigError
from api.contract.recipes.resolve import resolve
from api.contract.settings import SlurmSettings
from api.http.idempotency import read_once
from api.http.listing import read_listing
from api.http.paging import next_link
from api.http.recipes import Recipes
from api.http.requests import ServiceRequest, config_problem, read_service_request
from api.http.services import Services
from api.http.waiting import read_wait, until_settled
from api.http.wire import etag, service_response, status_of
from api.web.change_feed import ChangeFeed
from api.web.disconnect import unless_disconnected
from api.web.errors import ApiError, InvalidError
from api.web.query import Query
from api.web.responses import JsonResponse

log = logging.getLogger(__name__)


def service_routes(
    services: Services, recipes: Recipes, feed: ChangeFeed, site: SlurmSettings
) -> list[HTTPRouteHandler]:
    """Make the handlers."""

    @post("/api/v1/services", status_code=200)
    async def create_service(request: Request[Any, Any, Any]) -> JsonResponse:
        asked = read_service_request(await request.body())
        seconds = read_wait(Query(request))
        once = read_once(request.headers.get("idempotency-key"), asked)
        created = await services.answered(once) if once is not None else None
        if created is None:
            recipe, replicas = await _launchable(asked, recipes, site)
            created, is_new = await services.create(asked, recipe, replicas, once)
            if is_new:
                log.info("service %s (%s) created", created.id, created.name)
        if seconds is not None:
            waiting = until_settled(services, feed, created.id, seconds)
            row = await unless_disconnected(request.receive, waiting)
            created = created if row is None else service_response(row)
        return JsonResponse(created, headers={"ETag": etag(created.version)})

    @get("/api/v1/services")
    async def list_services(request: Request[Any, Any, Any]) -> JsonResponse:
        listing = read_listing(Query(request)) if request.scope["query_string"] else None
        if listing is None:
            return JsonResponse([service_response(row) for row in await services.list_all()])
        rows, cursor = await services.list_page(listing)
        return JsonResponse([service_response(row) for row in rows], headers=next_link(request, cursor))

    @get("/api/v1/services/{service_id:str}")
    async def get_service(service_id: FromPath[str]) -> JsonResponse:
        row = await services.find(service_id)
        if row is None:
            raise ApiError(404, "Service not found")
        return JsonResponse(service_response(row), headers={"ETag": etag(row.version)})

    @delete("/api/v1/services/{service_id:str}", status_code=200)
    async def stop_service(service_id: FromPath[str]) -> dict[str, str]:
        row = await services.find(service_id)
        if row is None:
            raise ApiError(404, "Service not found or failed to stop")
        if row.deletion_requested_at is None and await services.delete(row.id, row.name):
            log.info("service %s (%s) deleted", row.id, row.name)
        return {"message": f"Service {service_id} stopped successfully"}

    @get("/api/v1/services/{service_id:str}/status")
    async def get_service_status(service_id: FromPath[str]) -> dict[str, str]:
        row = await services.find(service_id)
        return {"status": "unknown" if row is None else status_of(row)}

    return [
        create_service,
        list_services,
        get_service,
        stop_service,
        get_service_status,
    ]


async def _launchable(asked: ServiceRequest, recipes: Recipes, site: SlurmSettings) -> tuple[str, int | None]:
    """Return the recipe's name, and the number of replicas if the config says one. Raises `ApiError`."""
    unknown = f"Recipe {asked.recipe_name[:200]!r} not found. GET /api/v1/recipes lists those that there are."
    recipe = await recipes.find(asked.recipe_name, unknown)
    try:
        spec = resolve(recipe, asked.config, replicas=None, site=site)
    except ConfigError as error:
        raise InvalidError(config_problem(asked.config, error.key, error.message)) from None
    return recipe.name, None if asked.config.get("replicas") is None else spec.replicas
