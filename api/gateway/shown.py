"""What of the head of an engine's answer its client gets. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from api.gateway.exchange import Header

STREAM = b"text/event-stream"
_CONTENT_TYPES = (b"application/json", STREAM, b"audio/")
"""What an engine may say that its answer is; anything else is bytes, which no browser shows."""
_BYTES = b"application/octet-stream"
_OF_MODELS = (b"content-length", b"retry-after")
_NO_STORE = (b"cache-control", b"no-store")


def model_headers(said: Sequence[Header]) -> list[Header]:
    """Return the headers of a model's answer."""
    kept = [header for header in said if header[0] in _OF_MODELS]
    return [(b"content-type", content_type(said)), _NO_STORE, *kept]


def content_type(said: Sequence[Header]) -> bytes:
    """Return what an answer is, as far as engines may say."""
    for name, value in said:
        if name == b"content-type":
            return _kind(value)
    return _BYTES


@lru_cache(maxsize=64)
def _kind(value: bytes) -> bytes:
    kind = value.partition(b";")[0].strip().lower()
    return kind if kind.startswith(_CONTENT_TYPES) else _BYTES
