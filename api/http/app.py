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
from api.gateway.address import gateway_url
from api.gateway.app import gateway_routes
from api.gateway.data_plane import DataPlane
from api.gateway.direct import direct_operations
from api.gateway.engines import Engines
from api.gateway.refusals import GatewayError
from api.http import documents
from api.http.changes import Changes
from api.http.groups import Groups
from api.http.history import History
from api.http.keys import KeyTable
from api.http.launchable import Launchable
from api.http.logs.following import Following
from api.http.not_passed_on import not_passed_on
from api.http.recipes import Recipes
from api.http.rollouts import Rollouts
from api.http.routes.changes import change_routes
from api.http.routes.groups import group_routes
from api.http.routes.history import history_routes
from api.http.routes.keys import key_routes
from api.http.routes.logs import log_routes
from api.http.routes.meta import meta_routes
from api.http.routes.prometheus import prometheus_routes
from api.http.routes.recipes import recipe_routes
from api.http.routes.rollouts import rollout_routes
from api.http.routes.services import service_routes
from api.http.routes.tokens import token_routes
from api.http.routes.vllm import vllm_routes
from api.http.routes.watch import watch_routes
from api.http.services import Services
from api.http.sight import Sight
from api.http.watching import ServiceWatch
from api.web.application import Application
from api.web.auth import Guard
from api.web.belonging import Access
from api.web.bodies import LARGEST_BODY
from api.web.change_feed import ChangeFeed
from api.web.errors import HANDLERS
from api.web.isolation import add_isolation
from api.web.request_id import add_request_id, log_request_id
from api.web.responses import JsonResponse
from api.web.serving import end_with_key


def create_app(
    settings: Settings, database: Database, *, guard: Guard, keyring: Keyring, environment: Mapping[str, str]
) -> Litestar:
    """Return the application over an open database, which stays the caller's to close.

    For who starts and stops the server: `app.state.until_known` waits until models and keys are known,
    `app.state.end_watches` ends what goes on for as long as its clients listen, and `app.state.end_streams` that and
    all that follows the database.

    `guard` decides who may ask, `keyring` is the installation's, `environment` the process's.
    """
    doors, url = Doors(keyring, "api"), gateway_url(settings)
    sight = Sight(Access(settings.api.access))
    services, feed, following = Services(database, sight), ChangeFeed(database), Following(database, settings.run_dir)
    data_plane = DataPlane(settings, database, feed, doors, guard.keys)
    engines = Engines(data_plane.forwarder)
    watches = ServiceWatch(database, feed, sight.default, url)
    guard.keys.signing_keys = keyring.signing_keys
    recipes = Recipes(Library(settings.recipes, settings.recipe))
    launchable, changes = Launchable(recipes, settings), Changes(database, sight)

    async def end_watches() -> None:
        await watches.close()
        await following.tails.close()

    async def end_streams() -> None:
        await end_watches()
        await data_plane.end_streams()

    @asynccontextmanager
    async def lifespan(_: Litestar) -> AsyncIterator[None]:
        await data_plane.begin()
        yield
        await end_watches()
        await data_plane.close()

    app = Application(
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
            *service_routes(services, launchable, feed, url),
            *log_routes(services, following, settings.run_dir),
            *change_routes(services, changes, recipes, launchable, url),
            *history_routes(services, History(database)),
            *rollout_routes(services, Rollouts(database), changes, recipes, launchable),
            *watch_routes(services, watches),
            *group_routes(services, Groups(database, sight), recipes),
            *prometheus_routes(services, engines),
            *vllm_routes(
                services,
                recipes,
                engines,
                data_plane.entrance,
                media_hosts=settings.gateway.media_hosts,
                gateway=url,
            ),
            *key_routes(KeyTable(database), data_plane.key_reader),
            *token_routes(keyring),
            *gateway_routes(data_plane.gateway),
        ],
        guards=[guard],
        middleware=[log_request_id, end_with_key(guard.keys)],
        exception_handlers={**HANDLERS, GatewayError: not_passed_on},
        before_send=[add_request_id, add_isolation],
        response_class=JsonResponse,
        request_max_body_size=LARGEST_BODY,
        lifespan=[lifespan],
        openapi_config=None,
        logging_config=None,
    )
    app.direct = direct_operations(data_plane.gateway, guard)
    app.state.until_known = data_plane.until_known
    app.state.end_watches, app.state.end_streams = end_watches, end_streams
    return app
