"""What goes wrong, and how it is said on the wire: always an object with `detail`, the request's id in a header."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from litestar import Request, Response
from litestar.exceptions import HTTPException
from litestar.types import ExceptionHandlersMap
from msgspec import UNSET, Struct, UnsetType

from api.web.request_id import request_id
from api.web.responses import JsonResponse

log = logging.getLogger(__name__)


class Problem(Struct, frozen=True, kw_only=True):
    """One thing that is wrong with a request, in the form of FastAPI's `ValidationError`."""

    loc: tuple[str | int, ...]
    """Where: `body`, then keys and indices."""
    msg: str
    type: str
    """One word for programs, as pydantic has them: `missing`, `string_type`, `json_invalid`, …"""
    input: Any = UNSET
    ctx: Mapping[str, Any] | UnsetType = UNSET


class ApiError(Exception):
    """A refusal that the client is told about as it is."""

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        headers: Mapping[str, str] | None = None,
        fields: Mapping[str, Any] | None = None,
        code: str | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        """A word for programs, where the API that was called has a place for it."""
        self.detail: str | tuple[Problem, ...] = detail
        self.headers = headers
        self.fields = fields or {}
        """What stands beside `detail`."""


class InvalidError(ApiError):
    """The request is not as it should be (422)."""

    def __init__(self, *problems: Problem) -> None:
        super().__init__(422, "; ".join(problem.msg for problem in problems))
        self.detail = problems


class UnavailableError(ApiError):
    """Something that is needed does not answer now (503); trying again may help."""

    def __init__(self, detail: str, *, retry_after: int) -> None:
        super().__init__(503, detail, headers={"Retry-After": str(retry_after)})


NAMES_REQUEST = "names_request"
"""Key of a route's `opt`: whether its refusals carry the request's id."""


def _body(request: Request[Any, Any, Any], error: ApiError) -> dict[str, Any]:
    """Return what is said; where we could not do it, the request's id too."""
    body: dict[str, Any] = {"detail": error.detail, **error.fields}
    handler = request.scope.get("route_handler")
    if error.fields or error.status == HTTPStatus.SERVICE_UNAVAILABLE or (handler and handler.opt.get(NAMES_REQUEST)):
        body["request_id"] = request_id(request.scope)
    return body


def _refused(request: Request[Any, Any, Any], error: ApiError) -> Response[Any]:
    if isinstance(error, UnavailableError):
        log.error("%s", error.detail, extra={"request_id": request_id(request.scope)})
    return JsonResponse(_body(request, error), status_code=error.status, headers=error.headers)


def _framework(_: Request[Any, Any, Any], error: HTTPException) -> Response[Any]:
    """Say unknown paths, wrong methods and the like in HTTP's own words."""
    detail = HTTPStatus(error.status_code).phrase
    if error.status_code == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        detail = "The body is larger than 1 MiB."
    return JsonResponse({"detail": detail}, status_code=error.status_code, headers=error.headers)


def _unexpected(request: Request[Any, Any, Any], error: Exception) -> Response[Any]:
    log.error(
        "unexpected error in %s %s",
        request.method,
        request.scope["path"],
        exc_info=error,
        extra={"request_id": request_id(request.scope)},
    )
    body = {"detail": HTTPStatus.INTERNAL_SERVER_ERROR.phrase, "request_id": request_id(request.scope)}
    return JsonResponse(body, status_code=500)


HANDLERS: ExceptionHandlersMap = {
    ApiError: _refused,
    HTTPException: _framework,
    Exception: _unexpected,
}
"""For the application."""
