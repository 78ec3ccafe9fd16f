"""/api/v1/keys: the keys of those who use the API."""

from __future__ import annotations

import contextlib
import logging
import time
from typing import Any

from litestar import Request, delete, get, post
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath
from msgspec import UNSET, Struct, UnsetType
from sqlalchemy import Row

from api.gateway.key_reader import KeyReader
from api.http.key_requests import LONGEST_LIFE, USUAL_LIFE, read_grace, read_key_request
from api.http.keys import KeyTable, has_ended
from api.http.openapi import EXTENDED, MAYBE_TEXT, TIME, Described, Operation, Schema, list_of, object_of, ref, text
from api.http.wire import iso
from api.web.auth import ADMIN, principal_of
from api.web.errors import ApiError, UnavailableError
from api.web.key_limits import LIMITS, MOST
from api.web.principal import KeyScope

NO_KEY = "There is no such key: GET /api/v1/keys lists them"
KEYS = {**EXTENDED, **ADMIN}

log = logging.getLogger(__name__)


class KeyResponse(Struct, kw_only=True):
    """A key as it is shown."""

    id: str
    name: str
    owner: str
    start: str
    state: str
    """`active` or `ended`."""
    scopes: list[str]
    models: list[str] | None
    project: str | None
    recipes: list[str] | None
    requests_per_minute: int | None
    tokens_per_minute: int | None
    requests_at_once: int | None
    created_at: str
    expires_at: str | None
    revoked_at: str | None
    last_used_at: str | None
    """As gateways have written it down; None: not yet."""
    secret: str | UnsetType = UNSET
    """In the answer that makes it, and never again."""


def key_routes(table: KeyTable, reader: KeyReader) -> list[HTTPRouteHandler]:
    """Make the handlers. What they change counts here when they answer, in other processes within a second."""

    async def heed() -> None:
        with contextlib.suppress(UnavailableError):
            await reader.look()

    @get("/api/v1/keys", opt=KEYS)
    async def list_keys() -> list[KeyResponse]:
        return [_response(row) for row in await table.list_all()]

    @post("/api/v1/keys", status_code=200, opt=KEYS)
    async def create_key(request: Request[Any, Any, Any]) -> KeyResponse:
        row, secret = await table.create(read_key_request(await request.body()))
        await heed()
        log.info("key %s (%s, of %s) made by %s", row.id, row.name, row.owner, principal_of(request.scope))
        return _response(row, secret)

    @post("/api/v1/keys/{key_id:str}/rotate", status_code=200, opt=KEYS)
    async def rotate_key(key_id: FromPath[str], request: Request[Any, Any, Any]) -> KeyResponse:
        made = await table.rotate(key_id, read_grace(await request.body()))
        if made is None:
            raise ApiError(404, f"{NO_KEY}; or it has ended: make a new one.")
        await heed()
        row, secret = made
        log.info("key %s (%s) made in place of %s by %s", row.id, row.name, key_id, principal_of(request.scope))
        return _response(row, secret)

    @delete("/api/v1/keys/{key_id:str}", status_code=200, opt=KEYS)
    async def revoke_key(key_id: FromPath[str], request: Request[Any, Any, Any]) -> KeyResponse:
        row = await table.revoke(key_id)
        if row is None:
            raise ApiError(404, f"{NO_KEY}.")
        await heed()
        log.info("key %s (%s) revoked by %s", row.id, row.name, principal_of(request.scope))
        return _response(row)

    return [list_keys, create_key, rotate_key, revoke_key]


def _response(row: Row[Any], secret: str | UnsetType = UNSET) -> KeyResponse:
    return KeyResponse(
        id=row.id,
        name=row.name,
        owner=row.owner,
        start=row.start,
        state="ended" if has_ended(row, time.time()) else "active",
        scopes=row.scopes,
        models=row.models,
        project=row.project,
        recipes=row.recipes,
        **{limit: getattr(row, limit) for limit in LIMITS},
        created_at=iso(row.created_at),
        expires_at=None if row.expires_at is None else iso(row.expires_at),
        revoked_at=None if row.revoked_at is None else iso(row.revoked_at),
        last_used_at=None if row.last_used_at is None else iso(row.last_used_at),
        secret=secret,
    )


_NAMES: Schema = {"anyOf": [{"type": "array", "items": {"type": "string"}}, {"type": "null"}]}
_SCOPES: Schema = {"type": "array", "items": {"type": "string", "enum": [scope.value for scope in KeyScope]}}
_LIMITS: dict[str, Schema] = {
    limit: {"anyOf": [{"type": "integer", "minimum": 1, "maximum": MOST[limit]}, {"type": "null"}]} for limit in LIMITS
}
_SHOWN = (
    *("id", "name", "owner", "project", "start", "state", "scopes", "models", "recipes"),
    *("created_at", "expires_at", "revoked_at", "last_used_at"),
)

DESCRIBED = Described(
    operations=(
        Operation(
            method="get",
            path="/api/v1/keys",
            name="list_keys",
            description="The keys, the newest last; never their secrets.",
            answer=list_of("Key", "Keys"),
            is_extended=True,
        ),
        Operation(
            method="post",
            path="/api/v1/keys",
            name="create_key",
            description="Make a key. Its secret is in this answer, and never shown again.",
            answer=ref("Key"),
            body=ref("KeyCreate"),
            is_extended=True,
        ),
        Operation(
            method="post",
            path="/api/v1/keys/{key_id}/rotate",
            name="rotate_key",
            description="Make a key in a key's place, which goes on for `grace` seconds (0 unless told).",
            answer=ref("Key"),
            refusals={"404": "There is no such key, or it has ended"},
            is_extended=True,
        ),
        Operation(
            method="delete",
            path="/api/v1/keys/{key_id}",
            name="revoke_key",
            description="Revoke a key: it opens nothing any more, and what is served under it ends.",
            answer=ref("Key"),
            refusals={"404": "There is no such key"},
            is_extended=True,
        ),
    ),
    extended_schemas={
        "Key": object_of(
            "Key",
            {
                "id": text("Id"),
                "name": text("Name"),
                "owner": text("Owner"),
                "start": text("Start"),
                "state": {"type": "string", "enum": ["active", "ended"]},
                "scopes": _SCOPES,
                "models": _NAMES,
                "project": MAYBE_TEXT,
                "recipes": _NAMES,
                **_LIMITS,
                "created_at": text("Created At"),
                "expires_at": TIME,
                "revoked_at": TIME,
                "last_used_at": {**TIME, "description": "A minute late or so; null: not yet."},
                "secret": text("Secret"),
            },
            [*_SHOWN, *LIMITS],
        ),
        "KeyCreate": object_of(
            "KeyCreate",
            {
                "name": text("Name"),
                "owner": {**text("Owner"), "description": "Left out: the name."},
                "scopes": {**_SCOPES, "default": [KeyScope.INFER.value]},
                "models": {**_NAMES, "description": "Names that it may ask for; null: all."},
                "project": {**MAYBE_TEXT, "description": "In which what it makes is; null: in none."},
                "recipes": {**_NAMES, "description": "Recipes that it may launch, by path; null: all."},
                **{limit: {**schema, "description": "null: no limit."} for limit, schema in _LIMITS.items()},
                "expires_in": {
                    "anyOf": [{"type": "number", "minimum": 1, "maximum": LONGEST_LIFE}, {"type": "null"}],
                    "default": USUAL_LIFE,
                    "description": "Seconds; null: without end.",
                },
            },
            ["name"],
        ),
    },
)
"""For the documents."""
