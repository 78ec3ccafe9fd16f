"""What the gateway itself refuses, in the form of the API that was called, so that its clients raise the right one."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any

import msgspec


class Form(Enum):
    """Whose errors a route speaks."""

    OPENAI = "OpenAI"
    ANTHROPIC = "Anthropic"


class GatewayError(Exception):
    """A request that is not passed on, or an engine that did not answer; the client is told this."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        retry_after: int | None = None,
        headers: Sequence[tuple[bytes, bytes]] = (),
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        """A word for programs, as OpenAI has them: `model_not_found`."""
        self.param = param
        """Which part of the request is wrong."""
        self.retry_after = retry_after
        """Seconds."""
        self.headers = headers
        """Further ones."""


_OPENAI_TYPES: Mapping[int, str] = {
    401: "authentication_error",
    403: "permission_error",
    429: "rate_limit_error",
}
_ANTHROPIC_TYPES: Mapping[int, str] = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
}
"""docs.anthropic.com, API errors."""


def body_of(error: GatewayError, form: Form, request_id: str) -> bytes:
    """Write the body of an answer that refuses."""
    if form is Form.ANTHROPIC:
        said = {"type": _type(error.status, _ANTHROPIC_TYPES), "message": error.message}
        return msgspec.json.encode({"type": "error", "error": said, "request_id": request_id})
    return msgspec.json.encode(
        {
            "error": {
                "message": error.message,
                "type": _type(error.status, _OPENAI_TYPES),
                "param": error.param,
                "code": error.code,
            }
        }
    )


def engine_refusal(status: int, said: bytes) -> GatewayError:
    """Read what an engine refuses, in the form of any of the APIs; of what is none of them, the status is told."""
    with contextlib.suppress(msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        error = msgspec.json.decode(said, type=_Refused).error
        if isinstance(error, dict) and isinstance(error.get("message"), str):
            code, param = (value if isinstance(value := error.get(name), str) else None for name in ("code", "param"))
            return GatewayError(max(status, 400), error["message"], code=code, param=param)
    message = f"The engine answered with status {status}, and with no stream."
    return GatewayError(status if status >= 400 else 502, message, code="engine_error")


class _Refused(msgspec.Struct):
    error: Any = None


def event_of(error: GatewayError, form: Form, request_id: str) -> bytes:
    """Write the event with which a stream breaks off: its HTTP status has been sent long ago."""
    name = b"event: error\n" if form is Form.ANTHROPIC else b""
    return b"%bdata: %b\n\n" % (name, body_of(error, form, request_id))


def _type(status: int, types: Mapping[int, str]) -> str:
    return types.get(status, "invalid_request_error" if status < 500 else "api_error")
