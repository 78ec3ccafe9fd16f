"""/api/v1/services/targets and /api/v1/services/{id}/metrics."""

from __future__ import annotations

from typing import Any

from litestar import Request, Response, get
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath

from api.gateway.engines import Engines
from api.http.exposition import MEDIA_TYPE, ServiceFigures
from api.http.openapi import EXTENDED, NOT_FOUND, Described, Operation
from api.http.services import Services
from api.http.wire import is_wanted
from api.web.auth import principal_of
from api.web.errors import ApiError
from api.web.replicas import ReadyReplica


def prometheus_routes(services: Services, engines: Engines) -> list[HTTPRouteHandler]:
    """Make the handlers."""
    figures = ServiceFigures(engines)

    @get("/api/v1/services/targets", opt=EXTENDED)
    async def list_service_targets(request: Request[Any, Any, Any]) -> list[dict[str, Any]]:
        return [
            {
                "targets": [f"[{row.host}]:{row.port}" if ":" in row.host else f"{row.host}:{row.port}"],
                "labels": {
                    "service_id": row.id,
                    "service": row.name,
                    "recipe": row.recipe_name,
                    "replica": str(row.replica),
                    "model": ",".join(map(str, row.models)),
                    **({} if row.door is None else {"__scheme__": "https"}),
                },
            }
            for row in await services.ready_endpoints(principal_of(request.scope))
        ]

    @get("/api/v1/services/{service_id:str}/metrics", opt=EXTENDED)
    async def get_service_metrics(service_id: FromPath[str], request: Request[Any, Any, Any]) -> Response[bytes]:
        principal = principal_of(request.scope)
        row = await services.find(service_id, principal)
        if row is None:
            raise ApiError(404, "Service not found")
        rows = await services.find_routes(row.id, principal) if is_wanted(row) else ()
        replicas = [
            ReadyReplica(
                token=one.token,
                name=f"{one.id}-{one.replica}",
                models=(),
                host=one.host,
                port=one.port,
                door=one.door,
            )
            for one in rows
            if one.host is not None
        ]
        return Response(await figures.tell(row, replicas), media_type=MEDIA_TYPE)

    return [list_service_targets, get_service_metrics]


DESCRIBED = Described(
    operations=(
        Operation(
            method="get",
            path="/api/v1/services/targets",
            name="list_service_targets",
            description="Where the ready replicas answer, for Prometheus' HTTP service discovery.",
            is_extended=True,
        ),
        Operation(
            method="get",
            path="/api/v1/services/{service_id}/metrics",
            name="get_service_metrics",
            description="Figures of a service and of its engines, in Prometheus' text format.",
            media_type="text/plain",
            answer={"type": "string"},
            refusals=NOT_FOUND,
            is_extended=True,
        ),
    ),
)
"""For the documents."""
