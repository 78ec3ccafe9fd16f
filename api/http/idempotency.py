"""`Idempotency-Key` (draft-ietf-httpapi-idempotency-key-header): who asks twice under one key is answered once.

The key is stored in the transaction that makes the service, so neither is ever there without the other.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Any

import msgspec
from sqlalchemy import Connection, delete, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from api.contract.tables import IdempotencyKey
from api.http.requests import ServiceRequest
from api.http.wire import ServiceResponse
from api.web.errors import InvalidError, Problem
from api.web.principal import Principal
from api.web.query import bad_header

KEPT_SECONDS = 24 * 3600.0
_KEY = re.compile(r'"([\x20\x21\x23-\x5b\x5d-\x7e]{1,255})"|([!#-\[\]-~]{1,255})')

_FIND = select(IdempotencyKey.fingerprint, IdempotencyKey.answer)
_ADD = insert(IdempotencyKey)


@dataclass(frozen=True, slots=True)
class Once:
    """A request that is to be done once."""

    key: str
    fingerprint: str


def read_once(header: str | None, request: ServiceRequest, principal: Principal) -> Once | None:
    """Read the header, quoted or not; raises `InvalidError`. Requests that ask for the same have one fingerprint.

    Each owner and project have keys of their own: nobody is told what others asked for under the same one.
    """
    if header is None:
        return None
    match = _KEY.fullmatch(header.strip())
    if match is None:
        raise bad_header("Idempotency-Key", "must be 1 to 255 printable characters, like a UUID", header)
    wanted = [request.recipe_name, request.config, request.name]
    if request.access is not None:
        wanted.append(request.access.value)
    key = match[1] or match[2]
    whose = [principal.owner, principal.project]
    return Once(key if whose == [None, None] else _hash([*whose, key]), _hash(wanted))


def _hash(value: list[Any]) -> str:
    return hashlib.sha256(msgspec.json.encode(value, order="deterministic")).hexdigest()


def answered(connection: Connection, once: Once, now: float) -> ServiceResponse | None:
    """Return what was answered under this key; raises `InvalidError` if something else was asked for then."""
    fresh = _FIND.where(IdempotencyKey.key == once.key, IdempotencyKey.at > now - KEPT_SECONDS)
    row = connection.execute(fresh).one_or_none()
    if row is None:
        return None
    if row.fingerprint != once.fingerprint:
        what = "This Idempotency-Key was used for another body. Send a new key, or the body of then."
        raise InvalidError(Problem(loc=("header", "Idempotency-Key"), msg=what, type="value_error", input=once.key))
    return msgspec.json.decode(row.answer, type=ServiceResponse)


async def remember(connection: AsyncConnection, once: Once, answer: ServiceResponse, now: float) -> None:
    """Keep the answer, and forget those that are too old. Raises `IntegrityError` if another was just quicker."""
    await connection.execute(delete(IdempotencyKey).where(IdempotencyKey.at <= now - KEPT_SECONDS))
    text = msgspec.json.encode(answer).decode()
    row = {"key": once.key, "fingerprint": once.fingerprint, "service_id": answer.id, "answer": text, "at": now}
    await connection.execute(_ADD, row)
