"""What the gateway refuses, said as REST says it."""

from __future__ import annotations

from typing import Any

from litestar import Request, Response

from api.gateway.refusals import GatewayError
from api.web.errors import HANDLERS, ApiError


def not_passed_on(request: Request[Any, Any, Any], error: GatewayError) -> Response[Any]:
    """Answer for a route of REST that asks engines."""
    headers = {name.decode(): value.decode() for name, value in error.headers}
    if error.retry_after is not None:
        headers["Retry-After"] = str(error.retry_after)
    answer: Response[Any] = HANDLERS[ApiError](request, ApiError(error.status, error.message, headers=headers))
    return answer
