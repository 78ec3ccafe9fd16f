"""/, /health, and the descriptions of the API."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from litestar import Request, Response, get, head
from litestar.handlers import HTTPRouteHandler

from api.contract import descriptors
from api.http.docs import docs_page
from api.http.openapi import TITLE, VERSION, Described, Operation
from api.http.recipes import Recipes
from api.http.services import Services
from api.web.auth import OPEN, is_known
from api.web.errors import UnavailableError
from api.web.keys import Keys


def meta_routes(
    services: Services,
    recipes: Recipes,
    environment: Mapping[str, str],
    lease_seconds: float,
    keys: Keys,
    *,
    contract: dict[str, Any],
    extended: dict[str, Any],
) -> list[HTTPRouteHandler]:
    """Make the handlers; `environment` is the process's, for where it runs, the others are the two documents.

    A controller that has not been heard of for `lease_seconds` counts as stale. `keys` say how old they are.
    """
    about = {
        "service": TITLE,
        "version": VERSION,
        "status": "running",
        "node": environment.get("SLURMD_NODENAME", "unknown"),
        "job_id": environment.get("SLURM_JOB_ID", "unknown"),
        "docs": "/docs",
    }
    contract_page = docs_page("/openapi.json", other="/docs/extended")
    extended_page = docs_page("/openapi.extended.json", other="/docs")

    @get("/")
    async def root() -> dict[str, str]:
        return about

    @get("/health", opt=OPEN)
    async def health(request: Request[Any, Any, Any]) -> dict[str, Any]:
        """Strangers, such as a load balancer, learn that the API answers and no more.

        The status is the API's own: it takes wishes, and answers, whatever else is stale.
        """
        if not is_known(request.scope):
            return {"status": "healthy"}
        known = await _known(services, lease_seconds)
        short_of = ["descriptors"] if descriptors.are_short() else []
        return {
            "status": "healthy",
            **known,
            "recipe_problems": await _recipe_problems(recipes),
            "short_of": short_of,
            "keys": {"last_reading": None if keys.age is None else round(keys.age, 1)},
        }

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

    @head("/")
    async def only_headers_of_root() -> None:
        """Whether anybody answers."""

    @head(["/health", "/openapi.json", "/openapi.extended.json", "/docs", "/docs/extended"], opt=OPEN)
    async def only_headers() -> None:
        """Load balancers ask so whether anybody answers."""

    return [only_headers_of_root, only_headers, root, health, openapi_json, openapi_extended_json, docs, docs_extended]


async def _known(services: Services, lease_seconds: float) -> dict[str, Any]:
    """Tell how the database is, who leads, how many seconds ago it was heard of (null: never), and what is stale."""
    nobody = {"last_heartbeat": None, "leader": None, "epoch": None}
    try:
        row = await services.leader()
    except UnavailableError as error:
        return {"database": str(error), "controller": nobody, "stale": ["database", "controller"]}
    if row is None:
        return {"database": "ok", "controller": nobody, "stale": ["controller"]}
    ago = max(0.0, time.time() - row.renewed_at)
    is_stale = row.holder is None or ago > lease_seconds
    controller = {"last_heartbeat": round(ago, 1), "leader": None if is_stale else row.host, "epoch": row.epoch}
    return {"database": "ok", "controller": controller, "stale": ["controller"] if is_stale else []}


async def _recipe_problems(recipes: Recipes) -> dict[str, str]:
    """Tell what is wrong with recipes, by path; with their folders, under the path `*`."""
    try:
        return dict((await recipes.book()).problems)
    except UnavailableError as error:
        return {"*": str(error)}


DESCRIBED = Described(
    operations=(
        Operation(method="get", path="/", name="root", description="Root endpoint with service information."),
        Operation(method="get", path="/health", name="health", description="Health check endpoint."),
    ),
)
"""For the documents."""
