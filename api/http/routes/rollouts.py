"""/api/v1/services/{id}/rollout: how far a change is, what was before, and going back, holding and going on."""

from __future__ import annotations

import logging
from typing import Any

from litestar import Request, get, post
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath
from sqlalchemy import Row

from api.http.changes import MOST_TRIES, Changes, changeable, check_published, of_others
from api.http.launchable import Launchable
from api.http.openapi import (
    ANY_OBJECT,
    EXTENDED,
    INTEGER,
    MAYBE_INTEGER,
    MAYBE_TEXT,
    NOT_FOUND,
    TIME,
    Described,
    Operation,
    list_of,
    object_of,
    ref,
)
from api.http.recipes import Recipes
from api.http.rollouts import (
    STATES,
    GenerationResponse,
    RolloutResponse,
    Rollouts,
    Undo,
    chosen,
    generation_responses,
    gone_back,
    read_undo,
)
from api.http.services import Services
from api.web.auth import principal_of
from api.web.belonging import check_recipe
from api.web.errors import ApiError
from api.web.principal import Principal

log = logging.getLogger(__name__)

ROLLOUT = "/api/v1/services/{service_id:str}/rollout"


def rollout_routes(
    services: Services, rollouts: Rollouts, changes: Changes, recipes: Recipes, launchable: Launchable
) -> list[HTTPRouteHandler]:
    """Make the handlers."""

    async def found(key: str, principal: Principal) -> str:
        row = await services.find(key, principal)
        if row is None:
            raise ApiError(404, "Service not found")
        return str(row.id)

    async def shown(service_id: str) -> RolloutResponse:
        rollout = await rollouts.read(service_id)
        if rollout is None:
            raise ApiError(404, "Service not found")
        return rollout

    async def undone(key: str, undo: Undo, principal: Principal) -> str:
        for _ in range(MOST_TRIES):
            row = await changeable(services, key, principal)
            kept = chosen(await rollouts.kept(row.id), row, undo)
            values = await _checked(gone_back(row, kept), row, principal)
            message = f"{row.name} went back to what generation {kept.generation} asked for."
            if not values or await changes.change(row, values, "undo", message) is not None:
                log.info("service %s (%s) goes back to generation %d", row.id, row.name, kept.generation)
                return str(row.id)
        raise of_others()

    async def _checked(values: dict[str, Any], row: Row[Any], principal: Principal) -> dict[str, Any]:
        """Return the columns that change, once what would come of them is known to be launchable."""
        if values:
            name, config = values.get("recipe_name", row.recipe_name), values.get("config", row.config)
            unknown = f"Its recipe {name[:200]!r} is not there any more. Put it back, or go back to another generation."
            recipe = await recipes.find(name, unknown)
            check_recipe(principal, recipe.path)
            await launchable.check(recipe, config, config)
            check_published(principal, row, values, services.sight)
        return values

    async def held(key: str, principal: Principal, *, is_paused: bool) -> str:
        word = "paused" if is_paused else "resumed"
        for _ in range(MOST_TRIES):
            row = await changeable(services, key, principal)
            if await rollouts.is_paused(row.id) == is_paused:
                return str(row.id)
            values = {"rollout_paused": int(is_paused)}
            if await changes.change(row, values, word, f"The rollout of {row.name} was {word}.") is not None:
                log.info("service %s (%s): rollout %s", row.id, row.name, word)
                return str(row.id)
        raise of_others()

    @get(ROLLOUT, opt=EXTENDED)
    async def get_rollout(service_id: FromPath[str], request: Request[Any, Any, Any]) -> RolloutResponse:
        return await shown(await found(service_id, principal_of(request.scope)))

    @get(f"{ROLLOUT}/history", opt=EXTENDED)
    async def list_generations(service_id: FromPath[str], request: Request[Any, Any, Any]) -> list[GenerationResponse]:
        return generation_responses(await rollouts.kept(await found(service_id, principal_of(request.scope))))

    @post(f"{ROLLOUT}/undo", status_code=200, opt=EXTENDED)
    async def undo_rollout(service_id: FromPath[str], request: Request[Any, Any, Any]) -> RolloutResponse:
        undo = read_undo(await request.body())
        return await shown(await undone(service_id, undo, principal_of(request.scope)))

    @post(f"{ROLLOUT}/pause", status_code=200, opt=EXTENDED)
    async def pause_rollout(service_id: FromPath[str], request: Request[Any, Any, Any]) -> RolloutResponse:
        return await shown(await held(service_id, principal_of(request.scope), is_paused=True))

    @post(f"{ROLLOUT}/resume", status_code=200, opt=EXTENDED)
    async def resume_rollout(service_id: FromPath[str], request: Request[Any, Any, Any]) -> RolloutResponse:
        return await shown(await held(service_id, principal_of(request.scope), is_paused=False))

    return [get_rollout, list_generations, undo_rollout, pause_rollout, resume_rollout]


_PATH = "/api/v1/services/{service_id}/rollout"
_REFUSALS = {**NOT_FOUND, "409": "The service was deleted, or is changed by others all the time"}

DESCRIBED = Described(
    operations=(
        Operation(
            method="get",
            path=_PATH,
            name="get_rollout",
            description="How far the last change of a service is, and which attempts stand for its replicas: their "
            "lanes, when their jobs end, and what happens then.",
            answer=ref("Rollout"),
            refusals=NOT_FOUND,
            is_extended=True,
        ),
        Operation(
            method="get",
            path=f"{_PATH}/history",
            name="list_generations",
            description="What the last ten generations asked to be launched, the newest last. Those that changed "
            "nothing of it, only the number of replicas or whether it runs, are none of them.",
            answer=list_of("Generation", "Generations"),
            refusals=NOT_FOUND,
            is_extended=True,
        ),
        Operation(
            method="post",
            path=f"{_PATH}/undo",
            name="undo_rollout",
            description="Ask for what an earlier generation asked for, as a new generation. The number of replicas "
            "stays, and so do the recipes' files: they are read as they are now.",
            body=ref("RolloutUndo"),
            answer=ref("Rollout"),
            refusals={
                "403": "Its recipe is not one that the caller may launch",
                "404": "There is no such service, or that generation is not kept",
                "409": "There is nothing to go back to, its recipe can't be used, or the service was deleted",
            },
            is_extended=True,
        ),
        Operation(
            method="post",
            path=f"{_PATH}/pause",
            name="pause_rollout",
            description="Hold changes back from what runs. What fails is replaced all the same, as is wanted now.",
            answer=ref("Rollout"),
            refusals=_REFUSALS,
            is_extended=True,
        ),
        Operation(
            method="post",
            path=f"{_PATH}/resume",
            name="resume_rollout",
            description="Go on with what was held back.",
            answer=ref("Rollout"),
            refusals=_REFUSALS,
            is_extended=True,
        ),
    ),
    extended_schemas={
        "RolloutUndo": {
            "properties": {
                "to_generation": {**MAYBE_INTEGER, "description": "null, or left out: the one before this one."}
            },
            "type": "object",
            "additionalProperties": False,
            "title": "RolloutUndo",
        },
        "Rollout": object_of(
            "Rollout",
            {
                "service_id": {"type": "string"},
                "name": {"type": "string"},
                **dict.fromkeys(("generation", "observed_generation"), INTEGER),
                "paused": {"type": "boolean"},
                "state": {"type": "string", "enum": [*STATES]},
                "message": {"type": "string"},
                **dict.fromkeys(("replicas", "ready_replicas", "updated_replicas"), INTEGER),
                "attempts": {"type": "array", "items": ref("StandingAttempt")},
            },
            [*RolloutResponse.__struct_fields__],
        ),
        "StandingAttempt": object_of(
            "StandingAttempt",
            {
                "token": {"type": "string"},
                "replica": INTEGER,
                "attempt": INTEGER,
                "lane": {"type": "string"},
                "beside": {**MAYBE_TEXT, "description": "Why it was opened beside another attempt of its replica."},
                "generation": INTEGER,
                "is_updated": {"type": "boolean", "description": "Whether it was launched as is wanted now."},
                "state": {"type": "string", "enum": ["pending", "starting", "ready"]},
                "job_id": MAYBE_INTEGER,
                "node": MAYBE_TEXT,
                "draining_since": TIME,
                "ends_at": TIME,
                "then": {"type": "string", "description": "What happens when its job ends, for people."},
            },
            ["token", "replica", "attempt", "lane", "state", "then"],
        ),
        "Generation": object_of(
            "Generation",
            {
                "generation": INTEGER,
                "at": {"type": "string", "format": "date-time"},
                "recipe_name": {"type": "string"},
                "config": {**ANY_OBJECT, "title": "Config"},
                "changed": {"type": "array", "items": {"type": "string"}},
                "is_wanted": {"type": "boolean"},
            },
            [*GenerationResponse.__struct_fields__],
        ),
    },
)
"""For the documents."""
