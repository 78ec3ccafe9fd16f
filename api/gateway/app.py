"""The gateway's routes, for a Litestar application: raw ASGI, since a streamed answer costs half as much that way."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any
from urllib.parse import unquote

import msgspec
from litestar import Request, Response, asgi
from litestar.enums import ScopeType
from litestar.exceptions import HTTPException
from litestar.handlers import ASGIRouteHandler
from litestar.types import ExceptionHandlersMap, HTTPScope, Receive, Scope, Send

from api.contract.settings import GatewaySettings
from api.gateway.admission import AdmittedRequest, Limiter
from api.gateway.answer import Answer
from api.gateway.exchange import Header
from api.gateway.following import RoutingTableReader
from api.gateway.form_request import FormRequest, read_form_request
from api.gateway.forward import Forwarder, Passing
from api.gateway.leaving import Leaving, LeftError
from api.gateway.model_request import ModelRequest, read_model_request
from api.gateway.models import busy, destination_of, models_shown, ready_replicas, service_of
from api.gateway.operations import OPERATIONS, EngineOperation, form_of
from api.gateway.queue import Queues
from api.gateway.refusals import Form, GatewayError, body_of
from api.gateway.service_request import METHODS, REPEATABLE, answer_headers, read_target, request_headers
from api.gateway.table import Destination, RoutingTable, routing_table
from api.gateway.token_count import Reserve
from api.web.auth import INFER, KEY_ONLY, principal_of
from api.web.belonging import Access, Belonging
from api.web.errors import ApiError
from api.web.principal import KeyScope, Principal, verdict
from api.web.request_id import request_id

log = logging.getLogger(__name__)

MODELS = "/v1/models"
PASSED_ON = (b"accept", b"anthropic-version", b"anthropic-beta")
"""Of a request's headers. What proves who asks stays here."""
JSON = (b"content-type", b"application/json")
MEGABYTE = 1024 * 1024

Table = Callable[[], RoutingTable]
"""Where to look, once what is asked has been read; raises `GatewayError` while that is not known."""


class Gateway:
    """Serves one request after another out of the routing table."""

    def __init__(
        self,
        reader: RoutingTableReader,
        forwarder: Forwarder,
        limiter: Limiter,
        queues: Queues,
        settings: GatewaySettings,
    ) -> None:
        self._reader = reader
        self._settings = settings
        self._forwarder = forwarder
        self._limiter = limiter
        self._queues = queues
        reader.on_change = self._queues.ring

    async def begin(self) -> None:
        """Begin to keep the routing table."""
        self._reader.begin()

    async def until_known(self) -> None:
        """Wait until the database has been read once."""
        await self._reader.known.wait()

    async def close(self) -> None:
        """Let go of the routing table; what is being answered goes on."""
        await self._reader.close()

    async def serve(self, scope: HTTPScope, receive: Receive, send: Send) -> None:
        """Serve a request for a model; raises `GatewayError` for what is refused."""
        await self._serve_models(_path(scope), self._table, scope, receive, send)

    async def serve_service(self, scope: HTTPScope, receive: Receive, send: Send) -> None:
        """Serve a request to one service: any path, or of one that serves a model those of models."""
        asked = read_target(scope["raw_path"], scope["query_string"])
        principal = principal_of(scope)
        service = service_of(self._table(), principal, asked.service)
        if service.models:
            await self._serve_models(
                asked.path, partial(self._table_of, principal, asked.service), scope, receive, send
            )
            return
        if (refusal := verdict(principal, KeyScope.INFER, service.name)) is not None:
            raise refusal
        if scope["method"] not in METHODS:
            raise _wrong_method("A service", METHODS)
        body = await _read_body(receive, self._settings.largest_body * MEGABYTE)
        answer = Answer(send, Form.OPENAI, scope)

        async def forward(admitted: AdmittedRequest, leaving: Leaving) -> None:
            passing = Passing(
                method=scope["method"],
                target=asked.target,
                headers=request_headers(scope["headers"]),
                body=body,
                replicas=ready_replicas(service),
                asked_for=f"the service {service.name}",
                silence=self._settings.silence,
                first_byte=self._settings.first_byte,
                caller=principal.key or "",
                request_id=request_id(scope),
                is_repeatable=scope["method"] in REPEATABLE,
                shown=partial(answer_headers, service=asked.service),
                told=admitted.headers,
            )
            await self._forwarder.forward(passing, leaving, answer)

        await self._admit(scope, None, receive, answer, forward)

    async def _serve_models(self, path: str, table: Table, scope: HTTPScope, receive: Receive, send: Send) -> None:
        if path == MODELS or path.startswith(MODELS + "/"):
            await _tell_models(scope, table, path.removeprefix(MODELS).removeprefix("/"), send)
            return
        operation = OPERATIONS.get(path)
        if operation is None:
            raise GatewayError(404, f"There is no {path} here.", code="unknown_url")
        await self.serve_operation(operation, scope, receive, send, table)

    async def serve_operation(
        self,
        operation: EngineOperation,
        scope: HTTPScope,
        receive: Receive,
        send: Send,
        table: Table | None = None,
    ) -> None:
        """Serve what an engine is asked; raises `GatewayError` for what is refused. `None`: the table of all models."""
        _check_method(scope, "POST")
        table = table or self._table
        body = await _read_body(receive, self._settings.largest_body * MEGABYTE)
        asked, content_type = self._read(operation, scope, body)
        principal = principal_of(scope)
        if (refusal := verdict(principal, KeyScope.INFER, asked.model)) is not None:
            raise refusal

        def look() -> Destination:
            found = destination_of(table(), principal, asked.model)
            if not self._forwarder.has_room(found.replicas):
                raise busy(found.queue, len(found.replicas), asked.model, self._settings.in_flight)
            return found

        async def forward(admitted: AdmittedRequest, leaving: Leaving) -> None:
            destination = await self._queues.turn(look, leaving, principal.key or "")
            passing = Passing(
                target=operation.path,
                headers=(content_type, *(header for header in scope["headers"] if header[0] in PASSED_ON)),
                body=asked.with_model(destination.model),
                replicas=destination.replicas,
                asked_for=f"the model {asked.model!r}",
                silence=self._settings.silence,
                first_byte=self._settings.first_byte,
                caller=principal.key or "",
                form=operation.form,
                request_id=request_id(scope),
                told=admitted.headers,
                tokens=admitted.tokens,
            )
            await self._forwarder.forward(passing, leaving, answer)

        reserve = asked.reserve if operation.runs_model else None
        comment_after = self._settings.comment_after if asked.is_streamed else 0.0
        answer = Answer(send, operation.form, scope, comment_after)
        await self._admit(scope, reserve, receive, answer, forward)

    async def _admit(
        self,
        scope: HTTPScope,
        reserve: Callable[[], Reserve] | None,
        receive: Receive,
        answer: Answer,
        forward: Callable[[AdmittedRequest, Leaving], Awaitable[None]],
    ) -> None:
        """Have a request passed on whose body has been read, as far as its key's limits go.

        What is raised as `GatewayError` is told in the stream, where one has begun.
        """
        leaving = Leaving(receive, answer.outlet)
        try:
            with self._limiter.admitted(principal_of(scope), reserve) as admitted:
                answer.headers = admitted.headers
                await forward(admitted, leaving)
        except LeftError:
            pass  # nobody is there to be told anything
        except GatewayError as error:
            if answer.has_begun:
                await answer.fail(error)
            elif not leaving.is_gone:
                raise
        finally:
            answer.close()
            leaving.close()
            self._queues.ring()

    def _read(
        self, operation: EngineOperation, scope: HTTPScope, body: bytes
    ) -> tuple[ModelRequest | FormRequest, Header]:
        """Read what is asked for; return it, and what its body is."""
        if operation.is_multipart:
            content_type = (b"content-type", _content_type(scope))
            return read_form_request(body, content_type[1]), content_type
        return read_model_request(body, operation.path, self._settings.media_hosts), JSON

    def _table(self) -> RoutingTable:
        if self._reader.table is None:
            raise GatewayError(
                503,
                "The database has not been read yet, so no model is known. Try again in a moment.",
                code="database_unavailable",
                retry_after=1,
            )
        return self._reader.table

    def _table_of(self, principal: Principal, service: str) -> RoutingTable:
        """Return the table of one service alone, which the caller sees, whosever it is; raises `GatewayError`."""
        found = service_of(self._table(), principal, service)
        return routing_table((replace(found, belonging=Belonging(principal.owner, None, Access.OWNER)),))


def gateway_routes(gateway: Gateway) -> list[ASGIRouteHandler]:
    """Make the handlers."""

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == ScopeType.HTTP:
            await gateway.serve(scope, receive, send)

    async def serve_service(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == ScopeType.HTTP:
            await gateway.serve_service(scope, receive, send)

    mounted = asgi("/v1", is_mount=True, copy_scope=False, exception_handlers=HANDLERS, opt=INFER)(serve)
    single = [path for path in OPERATIONS if not path.startswith("/v1/")]
    services = asgi("/services", is_mount=True, copy_scope=False, exception_handlers=HANDLERS, opt=KEY_ONLY)(
        serve_service
    )
    return [mounted, services, asgi(single, copy_scope=False, exception_handlers=HANDLERS, opt=INFER)(serve)]


async def _tell_models(scope: HTTPScope, table: Table, name: str, send: Send) -> None:
    _check_method(scope, "GET", "HEAD")
    shown = models_shown(table(), principal_of(scope), name)
    await send({"type": "http.response.start", "status": 200, "headers": [JSON]})
    await send({"type": "http.response.body", "body": msgspec.json.encode(shown), "more_body": False})


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


def _content_type(scope: HTTPScope) -> bytes:
    said = [value for name, value in scope["headers"] if name == b"content-type"]
    return said[0] if len(said) == 1 else b""


def _check_method(scope: HTTPScope, *methods: str) -> None:
    if scope["method"] not in methods:
        raise _wrong_method(_path(scope), methods)


def _wrong_method(what: str, methods: Sequence[str]) -> GatewayError:
    taken = ", ".join(methods)
    allowed = ((b"allow", taken.encode()),)
    return GatewayError(405, f"{what} takes {taken}.", code="method_not_allowed", headers=allowed)


def _path(scope: Scope) -> str:
    """Return the path that was asked for; Litestar leaves of `path` what follows the mount."""
    return unquote(scope["raw_path"].decode("latin-1"))


def refused(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    """Say a refusal as the API says it that was called."""
    refusal = _as_gateway_error(error)
    headers = {} if refusal.retry_after is None else {"Retry-After": str(refusal.retry_after)}
    headers |= {name.decode(): value.decode() for name, value in refusal.headers}
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
    GatewayError: refused,
    ApiError: refused,
    HTTPException: refused,
    Exception: refused,
}
"""For the gateway's routes."""
