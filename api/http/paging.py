"""Pages: a cursor is where the last one ended, and the Link header (RFC 8288) says how to go on."""

from __future__ import annotations

import base64
import binascii
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode

import msgspec
from litestar import Request
from sqlalchemy import ColumnElement, Select, tuple_

from api.web.query import Query

MOST = 1000


def encode_cursor(kind: str, *place: float | int | str) -> str:
    """Write where a page of this kind (its order) ended."""
    return base64.urlsafe_b64encode(msgspec.json.encode([kind, *place])).decode().rstrip("=")


def read_cursor(query: Query, kind: str, *types: type) -> tuple[Any, ...] | None:
    """Read `after`, made for pages of this kind; what is none is refused in `query`."""
    text = query.text("after")
    if text is None:
        return None
    try:
        content = base64.b64decode(text.encode() + b"=" * (-len(text) % 4), altchars=b"-_", validate=True)
        found, *place = msgspec.json.decode(content, type=list[str | float | int])
    except (msgspec.MsgspecError, UnicodeError, binascii.Error, ValueError):
        found, place = None, []
    if found != kind or len(place) != len(types) or not all(map(_fits, place, types)):
        query.refuse("after", "is not where a page in this order ended: take it from the header Link", text)
        return None
    return tuple(place)


def _fits(value: Any, kind: type) -> bool:
    if kind is str:
        return isinstance(value, str) and "\0" not in value
    return isinstance(value, int | float) and abs(value) < 2**62


def beyond(
    statement: Select[Any], columns: tuple[ColumnElement[Any], ...], place: tuple[Any, ...], *, descending: bool
) -> Select[Any]:
    """Take what comes after a place in the order of these columns."""
    here = tuple_(*columns)
    return statement.where(here < place if descending else here > place)


def next_link(request: Request[Any, Any, Any], cursor: str | None) -> dict[str, str]:
    """Return the headers that lead to the next page: the same request, going on after the cursor."""
    if cursor is None:
        return {}
    kept = [(k, v) for k, v in parse_qsl(request.scope["query_string"].decode("latin-1"), True) if k != "after"]
    path = quote(request.scope["path"])
    return {"Link": f'<{path}?{urlencode([*kept, ("after", cursor)])}>; rel="next"'}
