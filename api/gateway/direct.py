"""Serving what engines are asked past the framework, whose routing and hooks cost each request and each chunk.

What the framework is told to do for every route is done here too, with the same functions.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from litestar import Request
from litestar.types import ASGIApp, Message, Receive, Scope, Send

from api.contract.log import about
from api.gateway.app import Gateway, refused
from api.gateway.operations import OPERATIONS, EngineOperation
from api.web.auth import Guard
from api.web.isolation import add_isolation
from api.web.keys import LapsedKeyError, Serving
from api.web.outlet import has_begun
from api.web.principal import KeyScope
from api.web.request_id import add_request_id, request_id
from api.web.serving import STATE_KEY as SERVING
from api.web.serving import note_cut


def direct_operations(gateway: Gateway, guard: Guard) -> Mapping[str, ASGIApp]:
    """Return what serves each path."""

    async def served(operation: EngineOperation, scope: Scope, receive: Receive, send: Send) -> None:
        is_told = False

        async def told(message: Message) -> None:
            nonlocal is_told
            if not is_told:
                is_told = True
                await add_request_id(message, scope)
                await add_isolation(message, scope)
            await send(message)

        with about(request_id=request_id(scope)):
            try:
                with Serving(guard.keys) as scope["state"][SERVING]:
                    guard.let_in(scope, KeyScope.INFER)
                    await gateway.serve_operation(operation, scope, receive, told)  # type: ignore[arg-type]
            except Exception as error:
                if not (is_told or has_begun(scope)):
                    request: Request[Any, Any, Any] = Request(scope)
                    await refused(request, error).to_asgi_response(request=request, app=None)(scope, receive, told)
                elif isinstance(error, LapsedKeyError):
                    note_cut()
                else:
                    raise

    return {path: partial(served, operation) for path, operation in OPERATIONS.items()}
