"""/api/v1/services/{id}/events, /attempts and /conditions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
from litestar import Request, get
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath
from sqlalchemy import Row

from api.http.history import TRUTHS, TYPES, History, Page, attempt_response, event_response, read_attempts, read_events
from api.http.paging import next_link
from api.http.services import Services
from api.http.wire import conditions_of, iso
from api.web.errors import EXTENDED, ApiError
from api.web.query import Query
from api.web.responses import JsonResponse


def history_routes(services: Services, history: History) -> list[HTTPRouteHandler]:
    """Make the handlers."""

    async def found(key: str) -> Row[Any]:
        row = await services.find(key)
        if row is None:
            raise ApiError(404, "Service not found")
        return row

    async def paged(
        key: str, request: Request[Any, Any, Any], page: Page, shown: Callable[[Row[Any]], dict[str, Any]]
    ) -> JsonResponse:
        rows, cursor = await history.read((await found(key)).id, page)
        return JsonResponse([shown(row) for row in rows], headers=next_link(request, cursor))

    @get("/api/v1/services/{service_id:str}/events", opt=EXTENDED)
    async def list_service_events(service_id: FromPath[str], request: Request[Any, Any, Any]) -> JsonResponse:
        return await paged(service_id, request, read_events(Query(request)), event_response)

    @get("/api/v1/services/{service_id:str}/attempts", opt=EXTENDED)
    async def list_service_attempts(service_id: FromPath[str], request: Request[Any, Any, Any]) -> JsonResponse:
        return await paged(service_id, request, read_attempts(Query(request)), attempt_response)

    @get("/api/v1/services/{service_id:str}/conditions", opt=EXTENDED)
    async def list_service_conditions(service_id: FromPath[str], request: Request[Any, Any, Any]) -> JsonResponse:
        query = Query(request)
        types, truths = query.words("type", TYPES), query.words("status", TRUTHS)
        query.check()
        conditions = conditions_of(await found(service_id))
        return JsonResponse(
            [
                {**msgspec.to_builtins(condition), "since": iso(condition.since)}
                for condition in conditions
                if (not types or condition.type in types) and (not truths or condition.status in truths)
            ]
        )

    return [list_service_events, list_service_attempts, list_service_conditions]
