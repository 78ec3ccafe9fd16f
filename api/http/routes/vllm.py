"""/api/v1/vllm."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from litestar import Request, Response, get, post
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath
from sqlalchemy import Row

from api.contract.recipes.book import Book
from api.contract.recipes.spec import SpecHead
from api.contract.status import explanation
from api.http.openapi import Described, Operation, query
from api.http.prompts import GONE, Prompts, not_ready
from api.http.recipes import Recipes
from api.http.requests import read_prompt_request
from api.http.services import Services
from api.http.wire import conditions_of, endpoint_of, is_wanted, status_of
from api.web.disconnect import unless_disconnected
from api.web.engines import Engines, UnreachableError
from api.web.errors import ApiError
from api.web.query import Query
from api.web.replicas import ReadyReplica
from api.web.responses import JsonResponse
from api.web.sse import event_stream


def vllm_routes(services: Services, recipes: Recipes, engines: Engines) -> list[HTTPRouteHandler]:
    """Make the handlers."""
    prompts = Prompts(engines)

    @get("/api/v1/vllm/services")
    async def list_vllm_services() -> dict[str, list[dict[str, Any]]]:
        rows = await services.list_with_spec()
        book = await recipes.book() if any(row.spec is None for row in rows) else Book({}, {})
        shown = [
            {
                "id": row.id,
                "name": row.name,
                "recipe_name": row.recipe_name,
                "endpoint": endpoint_of(row),
                "status": status_of(row),
            }
            for row in rows
            if _is_vllm(row, book)
        ]
        return {"vllm_services": shown}

    @get("/api/v1/vllm/{service_id:str}/models")
    async def get_vllm_models(service_id: FromPath[str]) -> dict[str, Any]:
        rows = await _vllm_rows(services, recipes, service_id)
        if not rows:
            return _no_models(service_id, "unknown", "Service not found", f"There is no vLLM service {service_id}.")
        own_id, status, replicas = rows[0].id, status_of(rows[0]), _replicas(rows)
        if not replicas:
            answer = not_ready(own_id, status, explanation(conditions_of(rows[0])))
            return _no_models(own_id, status, answer["error"], answer["message"])
        try:
            answered = await engines.get(replicas, "/v1/models")
        except UnreachableError as error:
            return _no_models(own_id, status, "Service not available", f"{GONE} ({error})")
        models = _model_names(answered.body) if answered.status == 200 else None
        if models is None:
            message = f"{answered.replica.endpoint}/v1/models did not answer with a list of models."
            return _no_models(own_id, status, f"vLLM returned {answered.status}", message)
        return {
            "success": True,
            "models": models,
            "service_id": own_id,
            "endpoint": answered.replica.endpoint,
        }

    @post("/api/v1/vllm/{service_id:str}/prompt", status_code=200)
    async def prompt_vllm_service(service_id: FromPath[str], request: Request[Any, Any, Any]) -> Response[Any]:
        asked = read_prompt_request(await request.body())
        query = Query(request)
        is_streamed = query.flag("stream")
        query.check()
        rows = await _vllm_rows(services, recipes, service_id)
        if not rows:
            raise ApiError(500, f"VLLM service {service_id} not found or not running")
        replicas = _replicas(rows)
        if not replicas:
            return JsonResponse(not_ready(rows[0].id, status_of(rows[0]), explanation(conditions_of(rows[0]))))
        if is_streamed:
            return event_stream(prompts.stream(rows[0].id, rows[0].digest or "", replicas, asked))
        answer = prompts.answer(rows[0].id, rows[0].digest or "", replicas, asked)
        return JsonResponse(await unless_disconnected(request.receive, answer))

    return [list_vllm_services, get_vllm_models, prompt_vllm_service]


async def _vllm_rows(services: Services, recipes: Recipes, key: str) -> Sequence[Row[Any]]:
    """Return the routes of a service if it runs vLLM; nothing of others, or if it is unknown."""
    rows = await services.find_routes(key)
    if not rows:
        return ()
    book = await recipes.book() if rows[0].spec is None else Book({}, {})
    return rows if _is_vllm(rows[0], book) else ()


def _is_vllm(row: Row[Any], book: Book) -> bool:
    """Whether the controller resolved it to vLLM; before it has looked, whether the recipe says so."""
    if row.spec is not None:
        return msgspec.json.decode(row.spec, type=SpecHead).engine == "vllm"
    recipe = book.find(row.recipe_name)
    return recipe is not None and recipe.content.engine == "vllm"


def _replicas(rows: Sequence[Row[Any]]) -> list[ReadyReplica]:
    """Return the replicas that may be asked: the ready ones of a service that is still wanted."""
    if rows[0].host is None or not is_wanted(rows[0]):
        return []
    return [ReadyReplica.of(row) for row in rows]


def _model_names(body: Any) -> list[str] | None:
    """Return the ids in an OpenAI list of models; `None` if it is none."""
    data = body.get("data") if isinstance(body, dict) else None
    if not isinstance(data, list):
        return None
    return [item["id"] for item in data if isinstance(item, dict) and isinstance(item.get("id"), str)]


def _no_models(service_id: str, status: str, error: str, message: str) -> dict[str, Any]:
    return {
        "success": False,
        "error": error,
        "message": message,
        "service_id": service_id,
        "status": status,
        "models": [],
    }


DESCRIBED = Described(
    operations=(
        Operation(
            method="get",
            path="/api/v1/vllm/services",
            name="list_vllm_services",
            description="List all running VLLM services.",
        ),
        Operation(
            method="get",
            path="/api/v1/vllm/{service_id}/models",
            name="get_vllm_models",
            description="Get available models served by a running VLLM service.",
        ),
        Operation(
            method="post",
            path="/api/v1/vllm/{service_id}/prompt",
            name="prompt_vllm_service",
            description="Send a prompt to a running VLLM service.",
            body={"type": "object", "additionalProperties": True, "title": "Request"},
            further=(
                query(
                    "stream",
                    "Answer bit by bit: server-sent events, delta with a piece of the text and done with the whole "
                    "answer. What is refused before the first piece is JSON as ever.",
                    type="boolean",
                ),
            ),
        ),
    ),
)
"""For the documents."""
