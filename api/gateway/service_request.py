"""Reading what is asked of a service under `/services/NAME/…`, and what it may answer. Pure.

Whatever a service runs, its answers come from the API's own origin: a browser must take them for no page of it.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass

from api.gateway.exchange import Header
from api.gateway.refusals import GatewayError

PREFIX = "/services/"
METHODS = ("GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE")
REPEATABLE = ("GET", "HEAD", "OPTIONS")
"""What asks for no change (RFC 9110, 9.2.1), of what is passed on."""

_NAME = re.compile(r"[a-z0-9-]{1,160}")
_TARGET = re.compile(r"[!$-;=?-\[\]_a-z|~]*")
"""Of what stands in a URL (RFC 3986), and of what clients leave unquoted in one: no blank, quote, backslash, `#`."""
_QUOTED = re.compile(r"%2f|%5c|%[01][0-9a-f]|%7f", re.IGNORECASE)
"""Slashes, backslashes and control characters that some programs see and others do not."""
_QUOTED_DOT = re.compile(r"%2e", re.IGNORECASE)
_HEADER_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HEADER_VALUE = re.compile(rb"[^\x00-\x08\x0a-\x1f\x7f]*")

_OUR_OWN = (
    b"authorization", b"x-api-key", b"cookie", b"cookie2", b"proxy-authorization", b"proxy-connection",
    b"host", b"content-length", b"accept-encoding", b"expect", b"x-request-id", b"forwarded", b"x-real-ip",
    b"origin", b"referer", b"x-http-method-override", b"x-method-override", b"x-original-url", b"x-rewrite-url",
    b"connection", b"keep-alive", b"te", b"trailer", b"transfer-encoding", b"upgrade",
)  # fmt: skip
"""Of a request's headers: what proves who asks, what holds for one connection (RFC 9110, 7.6.1), what says where a
request came from, and what some programs take for another method or path."""
_OUR_OWN_BEGIN = (b"x-forwarded-", b"sec-", b"access-control-")

_PASSED_BACK = (
    b"accept-ranges", b"allow", b"content-disposition", b"content-encoding", b"content-language", b"content-length",
    b"content-range", b"content-type", b"etag", b"last-modified", b"retry-after",
)  # fmt: skip
"""Of an answer's headers: none that sets a cookie, or speaks for the origin."""
_ISOLATION = ((b"content-security-policy", b"sandbox"), (b"cache-control", b"no-store"))


@dataclass(frozen=True, slots=True)
class ServiceTarget:
    """Which service is asked for what."""

    service: str
    """Its name or id."""
    path: str
    """As it stands in the request, with a slash at its beginning."""
    query: str

    @property
    def target(self) -> str:
        """Path and query."""
        return f"{self.path}?{self.query}" if self.query else self.path


def read_target(raw_path: bytes, query: bytes) -> ServiceTarget:
    """Read a request's path as it was sent; raises `GatewayError` for one that programs might read in two ways."""
    path, asked = raw_path.decode("latin-1"), query.decode("latin-1")
    name, slash, rest = path.removeprefix(PREFIX).partition("/")
    if not _NAME.fullmatch(name):
        raise GatewayError(404, "There is no service of that name here.", code="service_not_found")
    if not (_is_plain(rest) and _TARGET.fullmatch(asked)):
        raise GatewayError(
            400,
            "The path has . or .. or nothing between two slashes, or a quoted slash, or what must be quoted: "
            "programs read such paths in more than one way.",
            code="invalid_path",
        )
    return ServiceTarget(name, slash + rest or "/", asked)


def request_headers(said: Iterable[Header]) -> tuple[Header, ...]:
    """Return those of a request's headers that a service gets; raises `GatewayError` for what is none."""
    headers = [(name.lower(), value) for name, value in said]
    if not all(_HEADER_NAME.fullmatch(name) and _HEADER_VALUE.fullmatch(value) for name, value in headers):
        raise GatewayError(400, "A header has characters that none may have.")
    named = {word.strip().lower() for name, value in headers if name == b"connection" for word in value.split(b",")}
    hidden = {*_OUR_OWN, *named}
    return tuple(header for header in headers if not _is_hidden(header[0].replace(b"_", b"-"), hidden))


def _is_hidden(name: bytes, hidden: Container[bytes]) -> bool:
    """Whether a service does not get a header; programs of the WSGI read `x_name` as `x-name`."""
    return name in hidden or name.startswith(_OUR_OWN_BEGIN)


def answer_headers(said: Sequence[Header], service: str) -> list[Header]:
    """Return the headers of a service's answer. Where it leads elsewhere in itself, that is under our path."""
    kept = [header for header in said if header[0] in _PASSED_BACK]
    places = [value for name, value in said if name == b"location"]
    if len(places) == 1 and (place := _place(places[0], service)) is not None:
        kept.append((b"location", place))
    return [*kept, *_ISOLATION]


def _place(location: bytes, service: str) -> bytes | None:
    """Return where an answer leads to, as its reader has to ask; `None` out of the service."""
    place = re.sub(r"^https?://engine(?=/|$)", "", location.decode("latin-1"))
    path, _, query = place.partition("?")
    if not path.startswith("/") or not _is_plain(path[1:]) or not _TARGET.fullmatch(query):
        return None
    return f"{PREFIX}{service}{place}".encode()


def _is_plain(path: str) -> bool:
    """Whether all programs read what follows a path's first slash in the same way."""
    segments = _QUOTED_DOT.sub(".", path).split("/")
    if not _TARGET.fullmatch(path) or _QUOTED.search(path) or "" in segments[:-1]:
        return False
    return not any(segment.partition(";")[0] in (".", "..") for segment in segments)
