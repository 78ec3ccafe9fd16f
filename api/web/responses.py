"""Answers in JSON."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import msgspec
from litestar import Response


class JsonResponse(Response[Any]):
    """JSON, also of what people's own SQL may have stored: lone surrogates, which UTF-8 can't hold, are escaped."""

    def render(self, content: Any, media_type: str, enc_hook: Callable[[Any], Any] | None = None) -> bytes:
        """Return the body."""
        if isinstance(content, bytes | str):
            return super().render(content, media_type, enc_hook)  # type: ignore[arg-type]
        try:
            return msgspec.json.encode(content)
        except UnicodeEncodeError:
            return json.dumps(msgspec.to_builtins(content)).encode()
