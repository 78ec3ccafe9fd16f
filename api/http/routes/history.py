"""/api/v1/services/{id}/events, /attempts and /conditions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
from litestar import Request, get
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath
from sqlalchemy import Row

from api.http.history import (
    STEPS,
    TRUTHS,
    TYPES,
    History,
    Page,
    attempt_response,
    event_response,
    read_attempts,
    read_events,
)
from api.http.openapi import (
    EXTENDED,
    INTEGER,
    MAYBE_INTEGER,
    MAYBE_TEXT,
    NOT_FOUND,
    PAGING,
    TAIL,
    TIME,
    Described,
    Operation,
    list_of,
    object_of,
    query,
)
from api.http.paging import next_link
from api.http.services import Services
from api.http.wire import conditions_of, iso
from api.web.auth import principal_of
from api.web.errors import ApiError
from api.web.query import Query
from api.web.responses import JsonResponse


def history_routes(services: Services, history: History) -> list[HTTPRouteHandler]:
    """Make the handlers."""

    async def found(key: str, request: Request[Any, Any, Any]) -> Row[Any]:
        row = await services.find(key, principal_of(request.scope))
        if row is None:
            raise ApiError(404, "Service not found")
        return row

    async def paged(
        key: str, request: Request[Any, Any, Any], page: Page, shown: Callable[[Row[Any]], dict[str, Any]]
    ) -> JsonResponse:
        rows, cursor = await history.read((await found(key, request)).id, page)
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
        conditions = conditions_of(await found(service_id, request))
        return JsonResponse(
            [
                {**msgspec.to_builtins(condition), "since": iso(condition.since)}
                for condition in conditions
                if (not types or condition.type in types) and (not truths or condition.status in truths)
            ]
        )

    return [list_service_events, list_service_attempts, list_service_conditions]


DESCRIBED = Described(
    operations=(
        Operation(
            method="get",
            path="/api/v1/services/{service_id}/events",
            name="list_service_events",
            description="What happened to a service, and what its users did, the newest last.",
            further=(
                query("type", "Only of this type.", type="string", enum=["Normal", "Warning"]),
                query(
                    "source", "Only the controller's, or what users did.", type="string", enum=["controller", "user"]
                ),
                query("reason", "Only for this reason.", type="string"),
                TAIL,
                *PAGING,
            ),
            answer=list_of("Event", "Events"),
            refusals=NOT_FOUND,
            is_extended=True,
        ),
        Operation(
            method="get",
            path="/api/v1/services/{service_id}/attempts",
            name="list_service_attempts",
            description="Every try at running a replica: its Slurm job, its steps and its outcome, the newest last.",
            further=(
                query("replica", "Only of this replica.", type="integer", minimum=0, maximum=1000),
                query("open", "Only those under way, or those that have ended.", type="boolean"),
                query("outcome", "Only those that ended like this.", type="string"),
                TAIL,
                *PAGING,
            ),
            answer=list_of("Attempt", "Attempts"),
            refusals=NOT_FOUND,
            is_extended=True,
        ),
        Operation(
            method="get",
            path="/api/v1/services/{service_id}/conditions",
            name="list_service_conditions",
            description="What is true of a service now, since when, and why.",
            further=(
                query("type", "Only of these types.", type="array", items={"type": "string", "enum": [*TYPES]}),
                query("status", "Only with these values.", type="array", items={"type": "string", "enum": [*TRUTHS]}),
            ),
            answer=list_of("Condition", "Conditions"),
            refusals=NOT_FOUND,
            is_extended=True,
        ),
    ),
    extended_schemas={
        "Event": object_of(
            "Event",
            {
                "source": {"type": "string", "enum": ["controller", "user"]},
                "type": {"type": "string"},
                "reason": {"type": "string"},
                "message": {"type": "string"},
                "count": INTEGER,
                "first_at": {"type": "string", "format": "date-time"},
                "last_at": {"type": "string", "format": "date-time"},
            },
            ["source", "type", "reason", "message", "count", "first_at", "last_at"],
        ),
        "Attempt": object_of(
            "Attempt",
            {
                "token": {"type": "string"},
                "replica": INTEGER,
                "attempt": {**INTEGER, "description": "Counted from 1 for each replica."},
                "lane": {"type": "string"},
                "beside": {**MAYBE_TEXT, "description": "Why it was opened beside another attempt of its replica."},
                "generation": INTEGER,
                "state": {"type": "string", "enum": ["pending", "starting", "ready", "ended"]},
                "job_id": MAYBE_INTEGER,
                "node": MAYBE_TEXT,
                "host": MAYBE_TEXT,
                "port": MAYBE_INTEGER,
                **{f"{step}_at": TIME for step in STEPS},
                "draining_since": {**TIME, "description": "Since when another attempt has its traffic."},
                "outcome": MAYBE_TEXT,
                "message": {"type": "string"},
                "exit_code": MAYBE_INTEGER,
            },
            ["token", "replica", "attempt", "state", "job_id", "outcome", "message"],
        ),
        "Condition": object_of(
            "Condition",
            {
                "type": {"type": "string"},
                "status": {"type": "string", "enum": [*TRUTHS]},
                "reason": {"type": "string"},
                "message": {"type": "string"},
                "since": {"type": "string", "format": "date-time"},
                "generation": INTEGER,
            },
            ["type", "status", "reason", "message", "since", "generation"],
        ),
    },
)
"""For the documents."""
