"""Which services are listed, in which order, and how many at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Row, Select, column, exists, or_, select, table

from api.contract.tables import AttemptRow, Service
from api.http.paging import MOST, beyond, encode_cursor, read_cursor
from api.web.query import Query

WORDS = ("pending", "building", "starting", "running", "completed", "failed", "cancelled")
_COLUMNS: dict[str, ColumnElement[Any]] = {
    "created_at": Service.__table__.c.created_at,
    "updated_at": Service.__table__.c.updated_at,
    "name": Service.__table__.c.name,
}
ORDERS = (*_COLUMNS, *(f"-{name}" for name in _COLUMNS))
PARAMETERS = ("status", "recipe", "name", "ready", "deleted", "sort", "limit", "after")
_OVERVIEW = table("service_overview", column("id"), column("status"))
IS_LEFT = or_(
    Service.deletion_requested_at.is_(None),
    exists().where(AttemptRow.service_id == Service.id, AttemptRow.gone_at.is_(None)),
)
"""Whether a service is wanted, or something of it may still be on the cluster: lists and names tell of no others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ListQuery:
    """What a client wants to see of all services."""

    statuses: tuple[str, ...] = ()
    recipe: str | None = None
    name: str | None = None
    """With `*` for any characters."""
    ready: bool | None = None
    deleted: bool | None = None
    """`None`: the living ones, and of the deleted ones those of which something is left."""
    sort: str = "created_at"
    limit: int | None = None
    after: tuple[Any, ...] | None = None

    def applied(self, statement: Select[Any]) -> Select[Any]:
        """Return the statement, which selects services, with all this; it gives one row more than the limit."""
        if self.statuses:
            statement = statement.where(_with_status(self.statuses))
        if self.ready is not None:
            statement = statement.where(_with_status(("running",)) if self.ready else ~_with_status(("running",)))
        if self.recipe is not None:
            statement = statement.where(_of_recipe(self.recipe))
        if self.name is not None:
            statement = statement.where(Service.name.like(_pattern(self.name).replace("*", "%"), escape="\\"))
        deleted_at = Service.deletion_requested_at
        chosen = {None: IS_LEFT, True: deleted_at.is_not(None), False: deleted_at.is_(None)}
        statement = statement.where(chosen[self.deleted])
        descending = self.sort.startswith("-")
        columns = (_COLUMNS[self.sort.removeprefix("-")], Service.__table__.c.id)
        if self.after is not None:
            statement = beyond(statement, columns, self.after, descending=descending)
        statement = statement.order_by(*(c.desc() if descending else c.asc() for c in columns))
        return statement if self.limit is None else statement.limit(self.limit + 1)

    def cursor(self, last: Row[Any]) -> str:
        """Return where a page that ends with this row ended."""
        return encode_cursor(self.sort, getattr(last, self.sort.removeprefix("-")), last.id)


def read_listing(query: Query) -> ListQuery | None:
    """Read what is asked for; `None`: all, as they come. Raises `InvalidError`."""
    if not query.has(PARAMETERS):
        return None
    sort = query.word("sort", ORDERS) or "created_at"
    found = ListQuery(
        statuses=tuple(query.words("status", WORDS)),
        recipe=query.text("recipe"),
        name=query.text("name"),
        ready=query.flag("ready"),
        deleted=query.flag("deleted"),
        sort=sort,
        limit=query.number("limit", 1, MOST),
        after=read_cursor(query, sort, str if sort.endswith("name") else float, str),
    )
    query.check()
    return found


def _with_status(words: tuple[str, ...]) -> ColumnElement[bool]:
    return Service.id.in_(select(_OVERVIEW.c.id).where(_OVERVIEW.c.status.in_(words)))


def _of_recipe(name: str) -> ColumnElement[bool]:
    """Find a recipe under its path and its stem, whichever of them a service was asked for by."""
    stem = name.rpartition("/")[2]
    if "/" in name:
        return Service.recipe_name.in_((name, stem))
    return or_(Service.recipe_name == name, Service.recipe_name.like(f"%/{_pattern(name)}", escape="\\"))


def _pattern(text: str) -> str:
    for character in "\\%_":
        text = text.replace(character, "\\" + character)
    return text
