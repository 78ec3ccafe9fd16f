"""/api/v1/services/{id}/logs."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from litestar import Request, Response, get
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath

from api.contract.status import explanation
from api.http.logs.ends import read_logs
from api.http.logs.following import Following, WantedLogs, check_number, chosen, read_marks
from api.http.openapi import Described, Operation, header, query
from api.http.services import Services
from api.http.wire import conditions_of
from api.web.auth import principal_of
from api.web.errors import ApiError
from api.web.query import Query
from api.web.responses import JsonResponse
from api.web.sse import event_stream

MOST_LINES = 100_000
MOST_SECONDS = 24 * 3600.0


def log_routes(services: Services, following: Following, run_dir: Path) -> list[HTTPRouteHandler]:
    """Make the handlers."""

    @get("/api/v1/services/{service_id:str}/logs")
    async def get_service_logs(service_id: FromPath[str], request: Request[Any, Any, Any]) -> Response[Any]:
        query, principal = Query(request), principal_of(request.scope)
        lines = query.number("tail", 0, MOST_LINES)
        replica, attempt = query.number("replica", 0, 1000), query.number("attempt", 1, 10**9)
        is_followed, seconds = query.flag("follow"), query.seconds("timeout", MOST_SECONDS)
        query.check()
        if is_followed:
            marks = read_marks(request.headers.get("last-event-id"))
            wanted = WantedLogs(replica=replica, attempt=attempt, lines=lines, marks=marks)
            async with following.beginning:
                row = await services.find(service_id, principal)
                if row is None:
                    raise ApiError(404, "Service not found")
                check_number((await following.look(row.id)).attempts, wanted)
            return event_stream(following.follow(row.id, wanted), seconds)
        row = await services.find(service_id, principal)
        if row is None:
            return _logs(f"Service {service_id} not found: there are no logs.")
        attempts = await services.attempts(row.id)
        if not attempts:
            return _logs(f"No logs yet: no job was submitted. {explanation(conditions_of(row))}".strip())
        tokens = [found.token for found in chosen(attempts, replica, attempt)]
        if not tokens:
            return _logs("There is no such attempt. GET …/attempts lists those that there are.")
        return _logs(await asyncio.to_thread(read_logs, run_dir, tokens, lines))

    return [get_service_logs]


def _logs(text: str) -> JsonResponse:
    return JsonResponse({"logs": text})


DESCRIBED = Described(
    operations=(
        Operation(
            method="get",
            path="/api/v1/services/{service_id}/logs",
            name="get_service_logs",
            description="Get logs from a service.",
            further=(
                query("tail", "Only the last so many lines of each file.", type="integer", minimum=0, maximum=100_000),
                query("replica", "Only of this replica.", type="integer", minimum=0, maximum=1000),
                query("attempt", "Of this attempt instead of the newest; ended ones too.", type="integer", minimum=1),
                query("follow", "Go on as they grow: server-sent events instead of JSON.", type="boolean"),
                query("timeout", "Follow for so many seconds.", type="number", minimum=0, maximum=86400),
                header("Last-Event-ID", "Follow on after this event."),
            ),
        ),
    ),
)
"""For the documents."""
