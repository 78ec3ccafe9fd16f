"""Puts the application together. Nothing is made on import, and nothing is looked up behind the caller's back."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from litestar import Litestar

from api.contract.database import Database
from api.contract.doors import Doors
from api.contract.keyring import Keyring
from api.contract.recipes.book import Library
from api.contract.settings import Settings
from api.gateway.app import Gateway, gateway_routes
from api.gateway.following import RoutingTableReader
from api.gateway.key_reader import KeyReader
from api.http import documents
from api.http.changes import Changes
from api.http.groups import Groups
from api.http.history import History
from api.http.keys import KeyTable
from api.http.launchable import Launchable
from api.http.logs.following import Following
from api.http.recipes import Recipes
from api.http.routes.changes import change_routes
from api.http.routes.groups import group_routes
from api.http.routes.history import history_routes
from api.http.routes.keys import key_routes
from api.http.routes.logs import log_routes
from api.http.routes.meta import meta_routes
from api.http.routes.prometheus import prometheus_routes
from api.http.routes.recipes import recipe_routes
from api.http.routes.services import service_routes
from api.http.routes.vllm import vllm_routes
from api.http.routes.watch import watch_routes
from api.http.services import Services
from api.http.watching import ServiceWatch
from api.web.auth import Guard
from api.web.bodies import LARGEST_BODY
from api.web.change_feed import ChangeFeed
from api.web.engines import Engines
from api.web.errors import HANDLERS
from api.web.isolation import add_isolation
from api.web.request_id import add_request_id, log_request_id
from api.web.responses import JsonResponse
from api.web.serving import end_with_key


def create_app(
    settings: Settings, database: Database, *, guard: Guard, keyring: Keyring, environment: Mapping[str, str]
) -> Litestar:
    """Return the application over an open database, which stays the caller's to close.

    `app.state.end_streams` ends what would go on for as long as its clients listen: for who stops the server.

    `guard` decides who may ask, `keyring` is the installation's, `environment` the process's.
    """
    doors = Doors(keyring, "api")
    engines, services = Engines(doors), Services(database)
    feed, following = ChangeFeed(database), Following(database, settings.run_dir)
    watches = ServiceWatch(database, feed)
    gateway = Gateway(RoutingTableReader(database, feed), doors, settings.gateway)
    key_reader = KeyReader(database, feed, guard.keys)
    recipes = Recipes(Library(settings.recipes, settings.recipe))
    launchable = Launchable(recipes, settings)

    async def end_streams() -> None:
        await watches.close()
        await feed.close()
        await following.tails.close()
        await gateway.close()
        await key_reader.close()

    @asynccontextmanager
    async def lifespan(_: Litestar) -> AsyncIterator[None]:
        await gateway.begin()
        key_reader.begin()
        yield
        await end_streams()

    app = Litestar(
        [
            *meta_routes(
                services,
                recipes,
                environment,
                settings.controller.lease,
                guard.keys,
                contract=documents.contract(),
                extended=documents.extended(),
            ),
            *recipe_routes(recipes),
            *service_routes(services, launchable, feed),
            *log_routes(services, following, settings.run_dir),
            *change_routes(services, Changes(database), recipes, launchable),
            *history_routes(services, History(database)),
            *watch_routes(services, watches),
            *group_routes(services, Groups(database), recipes),
            *prometheus_routes(services, engines),
            *vllm_routes(services, recipes, engines),
            *key_routes(KeyTable(database), key_reader),
            *gateway_routes(gateway),
        ],
        guards=[guard],
        middleware=[log_request_id, end_with_key(guard.keys)],
        exception_handlers=HANDLERS,
        before_send=[add_request_id, add_isolation],
        response_class=JsonResponse,
        request_max_body_size=LARGEST_BODY,
        lifespan=[lifespan],
        openapi_config=None,
        logging_config=None,
    )
    app.state.end_streams = end_streams
    return app
