"""/api/v1/tokens: a signed key for some hours, for who asks."""

from __future__ import annotations

import time
from typing import Any

from litestar import Request, post
from litestar.handlers import HTTPRouteHandler

from api.contract.keyring import Keyring
from api.http.key_requests import read_token_request
from api.http.openapi import EXTENDED, Described, Operation, object_of, ref, text
from api.http.wire import iso
from api.web.auth import ANY, principal_of
from api.web.errors import UnavailableError
from api.web.principal import KeyScope, verdict
from api.web.signed_key import LONGEST_LIFE, sign


def token_routes(keyring: Keyring) -> list[HTTPRouteHandler]:
    """Make the handlers."""

    @post("/api/v1/tokens", status_code=200, opt={**EXTENDED, **ANY})
    async def create_token(request: Request[Any, Any, Any]) -> dict[str, Any]:
        asked, principal = read_token_request(await request.body()), principal_of(request.scope)
        for scope in asked.scopes:
            if (refusal := verdict(principal, scope)) is not None:
                raise refusal
        signing_keys = keyring.signing_keys()
        if not signing_keys:
            raise UnavailableError("The installation has no key to sign with (key_file).", retry_after=60)
        until = min(time.time() + asked.life, principal.until or float("inf"))
        signed = sign(principal, asked.scopes, until, signing_keys[0])
        return {"secret": signed, "scopes": [scope.value for scope in asked.scopes], "expires_at": iso(until)}

    return [create_token]


_SCOPES = {"type": "array", "items": {"type": "string", "enum": [scope.value for scope in KeyScope]}}

DESCRIBED = Described(
    operations=(
        Operation(
            method="post",
            path="/api/v1/tokens",
            name="create_token",
            description="Sign a key for some hours, with scopes that the caller has; it ends with the caller's own.",
            answer=ref("Token"),
            body=ref("TokenCreate"),
            is_extended=True,
        ),
    ),
    extended_schemas={
        "Token": object_of(
            "Token",
            {"secret": text("Secret"), "scopes": _SCOPES, "expires_at": text("Expires At")},
            ["secret", "scopes", "expires_at"],
        ),
        "TokenCreate": object_of(
            "TokenCreate",
            {
                "scopes": {**_SCOPES, "default": [KeyScope.INFER.value]},
                "expires_in": {"type": "number", "minimum": 1, "maximum": LONGEST_LIFE, "default": LONGEST_LIFE},
            },
            [],
        ),
    },
)
"""For the documents."""
