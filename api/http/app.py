"""Puts the application together. Nothing is made on import, and nothing is looked up behind the caller's back."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from litestar import Litestar

from api.contract.database import Database
from api.contract.recipes.book import Library
from api.contract.settings import Settings
from api.http.auth import Door
from api.http.engines import Engines, new_client
from api.http.errors import HANDLERS
from api.http.recipes import Recipes
from api.http.request_id import add_request_id
from api.http.routes.meta import meta_routes
from api.http.routes.recipes import recipe_routes
from api.http.routes.services import service_routes
from api.http.routes.vllm import vllm_routes
from api.http.services import Services
from api.http.wire import JsonResponse

LARGEST_BODY = 1024 * 1024


def create_app(
    settings: Settings, database: Database, *, door: Door, key: bytes, environment: Mapping[str, str]
) -> Litestar:
    """Return the application over an open database, which stays the caller's to close.

    `door` decides who may ask, `key` is the installation's, `environment` the process's.
    """
    client = new_client()
    services = Services(database)
    recipes = Recipes(Library(settings.recipes, settings.recipe))

    @asynccontextmanager
    async def lifespan(_: Litestar) -> AsyncIterator[None]:
        async with client:
            yield

    return Litestar(
        [
            *meta_routes(services, recipes, environment, settings.controller.lease),
            *recipe_routes(recipes),
            *service_routes(services, recipes, settings.slurm, settings.run_dir),
            *vllm_routes(services, recipes, Engines(client, key)),
        ],
        guards=[door],
        exception_handlers=HANDLERS,
        before_send=[add_request_id],
        response_class=JsonResponse,
        request_max_body_size=LARGEST_BODY,
        lifespan=[lifespan],
        openapi_config=None,
        logging_config=None,
    )
