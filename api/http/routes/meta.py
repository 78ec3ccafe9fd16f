"""/, /health, and the descriptions of the API."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from litestar import Request, Response, get
from litestar.handlers import HTTPRouteHandler

from api.http import openapi
from api.http.auth import OPEN, is_known
from api.http.docs import docs_page
from api.http.errors import UnavailableError
from api.http.recipes import Recipes
from api.http.services import Services


def meta_routes(services: Services, recipes: Recipes, environment: Mapping[str, str]) -> list[HTTPRouteHandler]:
    """Make the handlers; `environment` is the process's, for where it runs."""
    about = {
        "service": openapi.TITLE,
        "version": openapi.VERSION,
        "status": "running",
        "node": environment.get("SLURMD_NODENAME", "unknown"),
        "job_id": environment.get("SLURM_JOB_ID", "unknown"),
        "docs": "/docs",
    }
    contract, extended = openapi.contract(), openapi.extended()
    contract_page = docs_page("/openapi.json", other="/docs/extended")
    extended_page = docs_page("/openapi.extended.json", other="/docs")

    @get("/")
    async def root() -> dict[str, str]:
        return about

    @get("/health", opt=OPEN)
    async def health(request: Request[Any, Any, Any]) -> dict[str, Any]:
        """Strangers, such as a load balancer, learn that the API answers and no more."""
        if not is_known(request.scope):
            return {"status": "healthy"}
        return {"status": "healthy", **await _database(services), "recipe_problems": await _recipe_problems(recipes)}

    @get("/openapi.json", opt=OPEN)
    async def openapi_json() -> dict[str, Any]:
        return contract

    @get("/openapi.extended.json", opt=OPEN)
    async def openapi_extended_json() -> dict[str, Any]:
        return extended

    @get("/docs", opt=OPEN)
    async def docs() -> Response[str]:
        return contract_page

    @get("/docs/extended", opt=OPEN)
    async def docs_extended() -> Response[str]:
        return extended_page

    return [root, health, openapi_json, openapi_extended_json, docs, docs_extended]


async def _database(services: Services) -> dict[str, Any]:
    """Tell how the database is, and how many seconds ago a controller was heard of; null: never."""
    try:
        heartbeat = await services.last_heartbeat()
    except UnavailableError as error:
        return {"database": str(error), "controller": {"last_heartbeat": None}}
    ago = None if heartbeat is None else round(max(0.0, time.time() - heartbeat), 1)
    return {"database": "ok", "controller": {"last_heartbeat": ago}}


async def _recipe_problems(recipes: Recipes) -> dict[str, str]:
    """Tell what is wrong with recipes, by path; with their folders, under the path `*`."""
    try:
        return dict((await recipes.book()).problems)
    except UnavailableError as error:
        return {"*": str(error)}
