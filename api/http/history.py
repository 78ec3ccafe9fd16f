"""What happened to a service: its events, the controller's and its users', and its attempts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row, Select, literal, select, union_all

from api.contract.database import Database
from api.contract.tables import AttemptRow, EventRow, UserEvent
from api.http.paging import MOST, beyond, encode_cursor, read_cursor
from api.http.wire import iso
from api.web.query import Query
from api.web.transactions import reading

PAGE = 100
TYPES = ("Accepted", "Startable", "Ready", "Available", "Progressing", "Continuous", "Observed")
TRUTHS = ("True", "False", "Unknown")
_EVENTS = union_all(
    select(
        EventRow.service_id,
        EventRow.id,
        literal("controller").label("source"),
        EventRow.type,
        EventRow.reason,
        EventRow.message,
        EventRow.count,
        EventRow.first_at,
        EventRow.last_at,
    ),
    select(
        UserEvent.service_id,
        UserEvent.id,
        literal("user").label("source"),
        literal("Normal").label("type"),
        UserEvent.action.label("reason"),
        UserEvent.message,
        literal(1).label("count"),
        UserEvent.at.label("first_at"),
        UserEvent.at.label("last_at"),
    ),
).subquery("all_events")
_EVENT_ORDER = (_EVENTS.c.last_at, _EVENTS.c.source, _EVENTS.c.id)
_ATTEMPTS = AttemptRow.__table__.c
_ATTEMPT_ORDER = (_ATTEMPTS.intent_at, _ATTEMPTS.token)
STEPS = ("intent", "submitted", "claimed", "started", "launched", "serving", "ready", "ends", "closed", "gone")


@dataclass(frozen=True, slots=True)
class Page:
    """Which lines of a history are wanted: those after a place, or the last so many."""

    wanted: Select[Any]
    order: tuple[Any, ...]
    kind: str
    after: tuple[Any, ...] | None
    limit: int
    tail: int | None


def read_events(query: Query) -> Page:
    """Read which events are asked for; raises `InvalidError`."""
    wanted = select(_EVENTS)
    for name, known in (("type", ("Normal", "Warning")), ("source", ("controller", "user"))):
        if (word := query.word(name, known)) is not None:
            wanted = wanted.where(_EVENTS.c[name] == word)
    if (reason := query.text("reason")) is not None:
        wanted = wanted.where(_EVENTS.c.reason == reason)
    return _page(query, wanted, _EVENT_ORDER, "events", float, str, int)


def read_attempts(query: Query) -> Page:
    """Read which attempts are asked for; raises `InvalidError`."""
    wanted = select(AttemptRow.__table__)
    if (replica := query.number("replica", 0, 1000)) is not None:
        wanted = wanted.where(_ATTEMPTS.replica == replica)
    if (is_open := query.flag("open")) is not None:
        wanted = wanted.where(_ATTEMPTS.closed_at.is_(None) if is_open else _ATTEMPTS.closed_at.is_not(None))
    if (outcome := query.text("outcome")) is not None:
        wanted = wanted.where(_ATTEMPTS.outcome == outcome)
    return _page(query, wanted, _ATTEMPT_ORDER, "attempts", float, str)


def _page(query: Query, wanted: Select[Any], order: tuple[Any, ...], kind: str, *types: type) -> Page:
    after = read_cursor(query, kind, *types)
    limit = query.number("limit", 1, MOST)
    tail = query.number("tail", 1, MOST)
    if tail is not None and query.has(("after", "limit")):
        query.refuse("tail", "goes with neither after nor limit", str(tail))
    query.check()
    return Page(wanted, order, kind, after, limit or PAGE, tail)


class History:
    """Reads what happened."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def read(self, service_id: str, page: Page) -> tuple[Sequence[Row[Any]], str | None]:
        """Return lines of a service's history, the newest last, and the cursor that leads on if there are more."""
        statement = page.wanted.where(page.wanted.selected_columns.service_id == service_id)
        if page.tail is not None:
            statement = statement.order_by(*(column.desc() for column in page.order)).limit(page.tail)
        else:
            if page.after is not None:
                statement = beyond(statement, page.order, page.after, descending=False)
            statement = statement.order_by(*page.order).limit(page.limit + 1)
        rows = await reading(self._database, lambda connection: connection.execute(statement).all())
        if page.tail is not None:
            return rows[::-1], None
        if len(rows) <= page.limit:
            return rows, None
        last = rows[page.limit - 1]
        return rows[: page.limit], encode_cursor(page.kind, *(getattr(last, column.key) for column in page.order))


def event_response(row: Row[Any]) -> dict[str, Any]:
    """Show an event."""
    return {
        "source": row.source,
        "type": row.type,
        "reason": row.reason,
        "message": row.message,
        "count": row.count,
        "first_at": iso(row.first_at),
        "last_at": iso(row.last_at),
    }


def attempt_response(row: Row[Any]) -> dict[str, Any]:
    """Show an attempt: one Slurm job, and when it reached each step (null: not yet)."""
    reached = {f"{step}_at": getattr(row, f"{step}_at") for step in STEPS}
    return {
        "token": row.token,
        "replica": row.replica,
        "attempt": row.incarnation,
        "lane": row.lane,
        "beside": row.beside,
        "generation": row.generation,
        "state": attempt_state(row),
        "job_id": row.job_id,
        "node": row.node,
        "host": row.host,
        "port": row.port,
        **{name: None if at is None else iso(at) for name, at in reached.items()},
        "draining_since": None if row.draining_since is None else iso(row.draining_since),
        "outcome": row.outcome,
        "message": row.message,
        "exit_code": row.exit_code,
    }


def attempt_state(row: Row[Any]) -> str:
    """Return how far an attempt is: pending, starting, ready or ended."""
    if row.closed_at is not None:
        return "ended"
    if row.ready_at is not None and row.unready_since is None:
        return "ready"
    return "pending" if row.started_at is None else "starting"
