"""Changing what is wanted of a service: only the version that was read is changed, so that nobody's change is lost."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Row, bindparam, update
from sqlalchemy.exc import IntegrityError

from api.contract.database import Database
from api.contract.tables import Service
from api.http.services import ADD_EVENT, Services, found, refused, user_event
from api.http.sight import Sight
from api.http.wire import etag, service_response
from api.web.belonging import Access, check_access
from api.web.errors import ApiError
from api.web.principal import Principal
from api.web.query import bad_header
from api.web.transactions import writing

MOST_TRIES = 10
"""So often a change that names no version is made anew on the one that somebody else has just made."""
GONE = "This service was deleted. Create a new one."

_TAG = re.compile(r'(?:W/)?"([^"]*)"')
_TAGS = re.compile(r'\s*(?:W/)?"[^"]*"\s*(?:,\s*(?:W/)?"[^"]*"\s*)*')
_CHANGE = (
    update(Service)
    .where(
        Service.id == bindparam("key"),
        Service.version == bindparam("read"),
        Service.deletion_requested_at.is_(None),
    )
)  # fmt: skip


def read_if_match(header: str | None) -> frozenset[str] | None:
    """Read `If-Match`: the tags of which one must be the service's; `None`: any will do. Raises `InvalidError`.

    Weak tags count too: a proxy that compresses makes ours weak.
    """
    if header is None or header.strip() == "*":
        return None
    if not _TAGS.fullmatch(header):
        raise bad_header("If-Match", "must be * or entity tags in quotes, as the header ETag has them", header)
    return frozenset(f'"{tag}"' for tag in _TAG.findall(header))


def check_match(wanted: frozenset[str] | None, row: Row[Any], gateway: str) -> None:
    """Raise `ApiError` (412), which shows the service as it is, unless it is one of the versions wanted."""
    tag = etag(row.version)
    if wanted is None or tag in wanted:
        return
    detail = f"The service has changed since: it is now {tag}. Read it again, and repeat your change on that version."
    raise ApiError(412, detail, headers={"ETag": tag}, fields={"etag": tag, "service": service_response(row, gateway)})


async def changeable(services: Services, key: str, principal: Principal) -> Row[Any]:
    """Return a service as it is to be changed, by id or name.

    Raises `ApiError`: 404 if the caller sees none, 403 if they may not change it, 409 if it was deleted.
    """
    row = await services.find(key, principal)
    if row is None:
        raise ApiError(404, "Service not found")
    services.sight.check_change(principal, row)
    if row.deletion_requested_at is not None:
        raise ApiError(409, GONE)
    return row


def of_others() -> ApiError:
    """Say that a change came to nothing, however often it was tried."""
    return ApiError(409, "Others change this service all the time. Try again in a moment.")


def check_published(principal: Principal, row: Row[Any], values: Mapping[str, Any], sight: Sight) -> None:
    """Raise `ApiError` (403, 422) where a change publishes something that the caller may not publish.

    What is published already counts too: its config says under which names it is asked for.
    """
    becomes = Access(values.get("access", row.access) or sight.default)
    if "access" in values or ("config" in values and becomes is Access.EVERYONE):
        check_access(principal, becomes, row.project)


class Changes:
    """Writes what people want changed."""

    def __init__(self, database: Database, sight: Sight) -> None:
        self._database = database
        self._sight = sight

    async def change(self, row: Row[Any], values: Mapping[str, Any], action: str, message: str) -> Row[Any] | None:
        """Change a service as it was read; return it as it is now, or `None` if it was changed or deleted meanwhile.

        Raises `ApiError` (422) if a constraint of the table refuses the values.
        """
        try:
            async with writing(self._database) as connection:
                keys = {"key": row.id, "read": row.version}
                changed = await connection.execute(_CHANGE.values(**values), keys)
                if changed.rowcount == 0:
                    return None
                await connection.execute(ADD_EVENT, user_event(row.id, action, message))
                return (await connection.run_sync(found, row.id, self._sight.all))[0]
        except IntegrityError as error:
            raise refused(error, row.name) from None
