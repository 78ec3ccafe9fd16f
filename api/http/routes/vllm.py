"""/api/v1/vllm."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import AsyncExitStack
from typing import Any

import msgspec
from litestar import Request, Response, get, post
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath
from sqlalchemy import Row

from api.contract.recipes.book import Book
from api.contract.recipes.spec import SpecHead
from api.contract.status import explanation
from api.gateway.engines import NO_ANSWER, AskedBy, Engines, UnreachableError
from api.gateway.entrance import AskedService, ServiceEntrance
from api.gateway.model_request import check_urls
from api.http.openapi import ANY_OBJECT, INTEGER, Described, Operation, query, text
from api.http.prompt_requests import DEFAULTS, PromptRequest, read_prompt_request
from api.http.prompts import GONE, Prompts, done, gone, not_ready
from api.http.recipes import Recipes
from api.http.services import Services
from api.http.wire import conditions_of, endpoint_of, is_wanted, status_of
from api.web.auth import principal_of
from api.web.disconnect import unless_disconnected
from api.web.errors import ApiError, InvalidError, Problem
from api.web.principal import KeyScope, Principal, verdict
from api.web.query import Query
from api.web.replicas import ReadyReplica
from api.web.responses import JsonResponse
from api.web.sse import event_stream


def vllm_routes(
    services: Services,
    recipes: Recipes,
    engines: Engines,
    entrance: ServiceEntrance,
    *,
    media_hosts: Collection[str],
    gateway: str,
) -> list[HTTPRouteHandler]:
    """Make the handlers.

    `media_hosts`: from where engines may fetch what a conversation names; `gateway`: its URL.
    """
    prompts = Prompts(engines, gateway)

    @get("/api/v1/vllm/services")
    async def list_vllm_services(request: Request[Any, Any, Any]) -> dict[str, list[dict[str, Any]]]:
        rows = await services.list_with_spec(principal_of(request.scope))
        book = await recipes.book() if any(row.spec is None for row in rows) else Book({}, {})
        shown = [
            {
                "id": row.id,
                "name": row.name,
                "recipe_name": row.recipe_name,
                "endpoint": endpoint_of(row, gateway),
                "status": status_of(row),
            }
            for row in rows
            if _is_vllm(row, book)
        ]
        return {"vllm_services": shown}

    @get("/api/v1/vllm/{service_id:str}/models")
    async def get_vllm_models(service_id: FromPath[str], request: Request[Any, Any, Any]) -> dict[str, Any]:
        principal = principal_of(request.scope)
        rows = await _vllm_rows(services, recipes, service_id, principal)
        if not rows:
            return _no_models(service_id, "unknown", "Service not found", f"There is no vLLM service {service_id}.")
        own_id, status, service = rows[0].id, status_of(rows[0]), _asked(rows)
        if not service.replicas:
            answer = not_ready(own_id, status, explanation(conditions_of(rows[0])))
            return _no_models(own_id, status, answer["error"], answer["message"])
        try:
            async with entrance.let_in(principal, service, None, request.receive) as (service, _):
                answered = await engines.get(service.replicas, "/v1/models")
        except NO_ANSWER as error:
            return _no_models(own_id, status, "Service not available", f"{GONE} ({error})")
        models = _model_names(answered.body) if answered.status == 200 else None
        if models is None:
            message = f"{answered.replica.endpoint}/v1/models did not answer with a list of models."
            return _no_models(own_id, status, f"vLLM returned {answered.status}", message)
        return {
            "success": True,
            "models": models,
            "service_id": own_id,
            "endpoint": prompts.endpoint(service, answered.replica),
        }

    @post("/api/v1/vllm/{service_id:str}/prompt", status_code=200)
    async def prompt_vllm_service(service_id: FromPath[str], request: Request[Any, Any, Any]) -> Response[Any]:
        asked = read_prompt_request(await request.body())
        query = Query(request)
        flag = query.flag("stream")
        query.check()
        is_streamed = asked.is_streamed if flag is None else flag
        _check(asked, media_hosts, is_streamed=is_streamed)
        principal = principal_of(request.scope)
        rows = await _vllm_rows(services, recipes, service_id, principal)
        if not rows:
            raise ApiError(500, f"VLLM service {service_id} not found or not running")
        _check_may_ask(principal, asked, rows[0])
        service, digest = _asked(rows), rows[0].digest or ""
        if not service.replicas:
            return JsonResponse(not_ready(rows[0].id, status_of(rows[0]), explanation(conditions_of(rows[0]))))
        let_in = AsyncExitStack()
        entering = entrance.let_in(principal, service, asked.reserve, request.receive)
        service, admitted = await let_in.enter_async_context(entering)
        asked_by = AskedBy(principal.key or "", admitted.tokens)
        headers = {name.decode(): value.decode() for name, value in admitted.headers}
        if is_streamed:
            events = prompts.stream(service, digest, asked, asked_by)
            return event_stream(_until_over(let_in, events), headers=headers)
        try:
            async with let_in:
                work = prompts.answer(service, digest, asked, asked_by)
                answer = await unless_disconnected(request.receive, work)
        except UnreachableError as error:
            return JsonResponse(gone(error))
        return JsonResponse(answer, headers=headers)

    return [list_vllm_services, get_vllm_models, prompt_vllm_service]


def _check(asked: PromptRequest, media_hosts: Collection[str], *, is_streamed: bool) -> None:
    """Raise `ApiError` for what is not asked of an engine, whichever it is."""
    if is_streamed and asked.shows_choices:
        msg = (
            "An answer of several choices, tokens or calls of tools is not told bit by bit here: leave out stream, "
            "or POST /v1/chat/completions"
        )
        raise InvalidError(Problem(loc=("body", "stream"), msg=msg, type="value_error", input=True))
    check_urls({"messages": asked.messages}, media_hosts)


async def _until_over(let_in: AsyncExitStack, events: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Yield a prompt's events, for as long as it is let in. Who never begins with them drops both, which ends that."""
    try:
        async with let_in:
            async for one in events:
                yield one
    except UnreachableError as error:
        yield done(gone(error))


def _check_may_ask(principal: Principal, asked: PromptRequest, row: Row[Any]) -> None:
    """Raise `ApiError` for a model that a key is not for; a service is asked under its name, and its model's."""
    names = [asked.model] if asked.model else [row.name, *(row.models or ())]
    refusals = [refusal for name in names if (refusal := verdict(principal, KeyScope.WRITE, name)) is not None]
    if len(refusals) == len(names):
        raise refusals[0]


async def _vllm_rows(services: Services, recipes: Recipes, key: str, principal: Principal) -> Sequence[Row[Any]]:
    """Return the routes of a service if it runs vLLM; nothing of others, or if it is unknown."""
    rows = await services.find_routes(key, principal)
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


def _asked(rows: Sequence[Row[Any]]) -> AskedService:
    """Return a service with the replicas that may be asked: the ready ones, while it is still wanted."""
    is_ready = rows[0].host is not None and is_wanted(rows[0])
    return AskedService(rows[0].id, rows[0].name, [ReadyReplica.of(row) for row in rows] if is_ready else ())


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
            body_fields={
                "prompt": {**text("Prompt"), "description": "What is asked; in its place, a conversation in messages."},
                "messages": {
                    "type": "array",
                    "items": ANY_OBJECT,
                    "title": "Messages",
                    "description": "A whole conversation, as OpenAI's chats have it: each with role and content.",
                },
                "system": {**text("System"), "description": "What the model is told before all that."},
                "model": {**text("Model"), "description": "Where the service serves several; else the one it serves."},
                "max_tokens": {**INTEGER, "default": DEFAULTS["max_tokens"], "title": "Max Tokens"},
                "temperature": {"type": "number", "default": DEFAULTS["temperature"], "title": "Temperature"},
                "stream": {"type": "boolean", "title": "Stream", "description": "As the parameter of that name."},
            },
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
