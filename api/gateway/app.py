"""The gateway's routes, for a Litestar application: raw ASGI, since a streamed answer costs half as much that way."""

from __future__ import annotations

import logging
from typing import Any
from urllib.parse import unquote

import msgspec
from litestar import Request, Response, asgi
from litestar.enums import ScopeType
from litestar.exceptions import HTTPException
from litestar.handlers import ASGIRouteHandler
from litestar.types import ExceptionHandlersMap, HTTPScope, Receive, Scope, Send

from api.contract.doors import Doors
from api.contract.settings import GatewaySettings
from api.gateway.following import RoutingTableReader
from api.gateway.forward import Forwarder, Passing
from api.gateway.model_request import read_model_request
from api.gateway.models import destination_of, models_shown
from api.gateway.operations import OPERATIONS, EngineOperation, form_of
from api.gateway.pool import Pool
from api.gateway.refusals import GatewayError, body_of
from api.gateway.table import RoutingTable
from api.web.auth import INFER, principal_of
from api.web.errors import ApiError
from api.web.principal import KeyScope, verdict
from api.web.request_id import request_id

log = logging.getLogger(__name__)

MODELS = "/v1/models"
PASSED_ON = (b"accept", b"anthropic-version", b"anthropic-beta")
"""Of a request's headers. What proves who asks stays here."""
JSON = (b"content-type", b"application/json")
MEGABYTE = 1024 * 1024


class Gateway:
    """Serves one request after another out of the routing table."""

    def __init__(self, reader: RoutingTableReader, doors: Doors, settings: GatewaySettings) -> None:
        self._reader = reader
        self._settings = settings
        self._pool = Pool(doors)
        self._forwarder = Forwarder(self._pool, settings.silence)

    async def begin(self) -> None:
        """Begin to keep the routing table."""
        self._reader.begin()

    async def close(self) -> None:
        """Let go of the routing table and of idle connections; what is being answered goes on."""
        await self._reader.close()
        self._pool.close()

    async def serve(self, scope: HTTPScope, receive: Receive, send: Send) -> None:
        """Serve a request; raises `GatewayError` for what is refused."""
        path = _path(scope)
        if path == MODELS or path.startswith(MODELS + "/"):
            await self._tell_models(scope, path.removeprefix(MODELS).removeprefix("/"), send)
            return
        operation = OPERATIONS.get(path)
        if operation is None:
            raise GatewayError(404, f"There is no {path} here.", code="unknown_url")
        _check_method(scope, "POST")
        await self._pass(operation, scope, receive, send)

    async def _pass(self, operation: EngineOperation, scope: HTTPScope, receive: Receive, send: Send) -> None:
        body = await _read_body(receive, self._settings.largest_body * MEGABYTE)
        asked = read_model_request(body, operation.path, self._settings.media_hosts)
        if (refusal := verdict(principal_of(scope), KeyScope.INFER, asked.model)) is not None:
            raise refusal
        destination = destination_of(self._table(), asked.model)
        passing = Passing(
            operation=operation,
            headers=tuple(header for header in scope["headers"] if header[0] in PASSED_ON),
            body=asked.with_model(destination.model),
            replicas=destination.replicas,
            model=asked.model,
            request_id=request_id(scope),
        )
        await self._forwarder.forward(passing, receive, send)

    async def _tell_models(self, scope: HTTPScope, name: str, send: Send) -> None:
        _check_method(scope, "GET")
        shown = models_shown(self._table(), name, principal_of(scope).may_ask)
        await send({"type": "http.response.start", "status": 200, "headers": [JSON]})
        await send({"type": "http.response.body", "body": msgspec.json.encode(shown), "more_body": False})

    def _table(self) -> RoutingTable:
        if self._reader.table is None:
            raise GatewayError(
                503,
                "The database has not been read yet, so no model is known. Try again in a moment.",
                code="database_unavailable",
                retry_after=1,
            )
        return self._reader.table


def gateway_routes(gateway: Gateway) -> list[ASGIRouteHandler]:
    """Make the handlers."""

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == ScopeType.HTTP:
            await gateway.serve(scope, receive, send)

    mounted = asgi("/v1", is_mount=True, copy_scope=False, exception_handlers=HANDLERS, opt=INFER)(serve)
    single = [path for path in OPERATIONS if not path.startswith("/v1/")]
    return [mounted, asgi(single, copy_scope=False, exception_handlers=HANDLERS, opt=INFER)(serve)]


async def _read_body(receive: Receive, most: int) -> bytes:
    """Read a request's body; raises `GatewayError` if it is too long, or the client leaves."""
    pieces: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise GatewayError(499, "The client left before its request was whole.")
        assert message["type"] == "http.request"
        piece = message["body"]
        size += len(piece)
        if size > most:
            raise GatewayError(413, f"The body is larger than {most // MEGABYTE} MB (gateway.largest_body).")
        pieces.append(piece)
        if not message["more_body"]:
            return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _check_method(scope: HTTPScope, method: str) -> None:
    if scope["method"] != method:
        raise GatewayError(405, f"{_path(scope)} takes {method}.", code="method_not_allowed")


def _path(scope: Scope) -> str:
    """Return the path that was asked for; Litestar leaves of `path` what follows the mount."""
    return unquote(scope["raw_path"].decode("latin-1"))


def _refused(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    """Say a refusal as the API says it that was called."""
    refusal = _as_gateway_error(error)
    headers = {} if refusal.retry_after is None else {"Retry-After": str(refusal.retry_after)}
    if isinstance(error, ApiError):
        headers |= dict(error.headers or {})
    body = body_of(refusal, form_of(_path(request.scope)), request_id(request.scope))
    return Response(body, status_code=refusal.status, headers=headers, media_type="application/json")


def _as_gateway_error(error: Exception) -> GatewayError:
    if isinstance(error, GatewayError):
        return error
    if isinstance(error, ApiError):
        return GatewayError(error.status, str(error.detail), code=error.code)
    if isinstance(error, HTTPException):
        return GatewayError(error.status_code, error.detail)
    log.error("unexpected error in a request for a model", exc_info=error)
    return GatewayError(500, "Something unexpected went wrong; the API's log says what, under this request's id.")


HANDLERS: ExceptionHandlersMap = {
    GatewayError: _refused,
    ApiError: _refused,
    HTTPException: _refused,
    Exception: _refused,
}
"""For the gateway's routes."""
