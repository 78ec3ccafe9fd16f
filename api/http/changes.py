"""Changing what is wanted of a service: only the version that was read is changed, so that nobody's change is lost."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Row, bindparam, update
from sqlalchemy.exc import IntegrityError

from api.contract.database import Database
from api.contract.tables import Service
from api.http.services import ADD_EVENT, found, refused, user_event
from api.http.wire import etag, service_response
from api.web.errors import ApiError
from api.web.query import bad_header
from api.web.transactions import writing

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


def check_match(wanted: frozenset[str] | None, row: Row[Any]) -> None:
    """Raise `ApiError` (412), which shows the service as it is, unless it is one of the versions wanted."""
    tag = etag(row.version)
    if wanted is None or tag in wanted:
        return
    detail = f"The service has changed since: it is now {tag}. Read it again, and repeat your change on that version."
    raise ApiError(412, detail, headers={"ETag": tag}, fields={"etag": tag, "service": service_response(row)})


class Changes:
    """Writes what people want changed."""

    def __init__(self, database: Database) -> None:
        self._database = database

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
                return (await connection.run_sync(found, row.id))[0]
        except IntegrityError as error:
            raise refused(error, row.name) from None
