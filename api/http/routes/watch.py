"""/api/v1/watch."""

from __future__ import annotations

from typing import Any

from litestar import Request, get
from litestar.handlers import HTTPRouteHandler
from litestar.response import Stream

from api.http.openapi import EXTENDED, NOT_FOUND, Described, Operation, header, query
from api.http.services import Services
from api.http.watching import LAST_NUMBER, ServiceWatch
from api.web.auth import principal_of
from api.web.errors import ApiError
from api.web.query import Query, bad_header
from api.web.sse import event_stream

MOST_SECONDS = 24 * 3600.0


def watch_routes(services: Services, watches: ServiceWatch) -> list[HTTPRouteHandler]:
    """Make the handlers."""

    @get("/api/v1/watch", opt=EXTENDED)
    async def watch(request: Request[Any, Any, Any]) -> Stream:
        query = Query(request)
        after = query.number("after", 0, LAST_NUMBER)
        principal = principal_of(request.scope)
        key, seconds = query.text("service"), query.seconds("timeout", MOST_SECONDS)
        query.check()
        last = request.headers.get("last-event-id")
        if last:
            after = _number(last)
        service_id = None
        if key is not None:
            row = await services.find(key, principal)
            if row is None:
                raise ApiError(404, "Service not found")
            service_id = row.id
        await watches.begin()
        return event_stream(watches.watch(principal, after, service_id), seconds)

    return [watch]


def _number(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and int(text[:20]) < LAST_NUMBER):
        raise bad_header("Last-Event-ID", "must be the number of the last event that was received", text)
    return int(text)


DESCRIBED = Described(
    operations=(
        Operation(
            method="get",
            path="/api/v1/watch",
            name="watch",
            description="Server-sent events: created, changed and deleted, each with the service as it is then, "
            "under the number of the change; reset: forget what you know, all there is follows.",
            further=(
                header("Last-Event-ID", "Go on after this number."),
                query(
                    "after",
                    "The same; 0: begin with all there is. Left out: only what changes from now on.",
                    type="integer",
                    minimum=0,
                ),
                query("service", "Only this service, by id or name.", type="string"),
                query("timeout", "End after so many seconds.", type="number", minimum=0, maximum=86400),
            ),
            media_type="text/event-stream",
            answer={"type": "string"},
            refusals=NOT_FOUND,
            is_extended=True,
        ),
    ),
)
"""For the documents."""
