"""Signed keys: what somebody may do for some hours, written down and signed, so that no table holds it.

`aift_`, what is signed as JSON, a point, and its HMAC-SHA-256 under a key that follows from the installation's; both in
the URL-safe letters of base64 (RFC 4648).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Iterable

import msgspec

from api.web.principal import KeyScope, Principal

PREFIX = "aift_"
LONGEST_LIFE = 12 * 3600.0
MOST_CHARACTERS = 4096


class Signed(msgspec.Struct, frozen=True, kw_only=True):
    """What is signed."""

    scopes: tuple[str, ...]
    until: float
    """Unix seconds."""
    key: str | None
    """Id of the key with which it was asked for, and with which it ends; `None`: a user of the API's host asked."""
    owner: str | None
    """Who asked; `None`: the operator."""


def sign(principal: Principal, scopes: Iterable[KeyScope], until: float, signing_key: bytes) -> str:
    """Write a key for a caller, which is good for these scopes until then."""
    names = tuple(sorted(scope.value for scope in scopes))
    signed = Signed(scopes=names, until=until, key=principal.key, owner=principal.owner)
    content = msgspec.json.encode(signed)
    return f"{PREFIX}{_text(content)}.{_text(_seal(content, signing_key))}"


def read_signed(text: str, signing_keys: Iterable[bytes]) -> Signed | None:
    """Return what was signed under one of these keys; `None`: nothing that is whole was."""
    content, _, seal = text.removeprefix(PREFIX).partition(".")
    if len(text) > MOST_CHARACTERS:
        return None
    try:
        told, sealed = _bytes(content), _bytes(seal)
        if not any(hmac.compare_digest(_seal(told, key), sealed) for key in signing_keys):
            return None
        return msgspec.json.decode(told, type=Signed)
    except (ValueError, msgspec.MsgspecError):
        return None


def _seal(content: bytes, key: bytes) -> bytes:
    return hmac.new(key, content, hashlib.sha256).digest()


def _text(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def _bytes(text: str) -> bytes:
    return base64.b64decode(text.encode("ascii") + b"=" * (-len(text) % 4), altchars=b"-_", validate=True)
