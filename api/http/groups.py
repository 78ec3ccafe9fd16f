"""Services of several replicas, as groups: how clients of replica groups see them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Row, Select, func, or_, select

from api.contract.database import Database
from api.contract.recipes.book import Book
from api.contract.tables import AttemptRow, Service, ServiceStatus
from api.http.history import attempt_state
from api.http.listing import IS_LEFT
from api.http.services import VIEW, found
from api.http.sight import IS_SEEN, Sight
from api.http.wire import is_wanted, iso, shown_config, status_of
from api.web.principal import Principal
from api.web.transactions import reading

_STATES = ("ready", "starting", "pending", "failed")
_GROUPS = VIEW.where(
    IS_SEEN,
    IS_LEFT,
    or_(
        func.coalesce(Service.replicas, ServiceStatus.wanted_replicas) > 1,
        func.coalesce(Service.replicas, ServiceStatus.wanted_replicas).is_(None),
    ),
).order_by(Service.created_at, Service.id)
_NEWEST = (
    select(AttemptRow.service_id, AttemptRow.replica, func.max(AttemptRow.incarnation).label("incarnation"))
    .group_by(AttemptRow.service_id, AttemptRow.replica)
    .subquery()
)


class Groups:
    """Reads the services that have more than one replica, and where these are."""

    def __init__(self, database: Database, sight: Sight) -> None:
        self._database = database
        self._sight = sight

    async def list_all(self, book: Book, principal: Principal) -> list[dict[str, Any]]:
        """Return all groups of which something is left, of those that a caller sees."""
        seen = self._sight.keys(principal)
        shown, attempts = await reading(self._database, lambda connection: _living(connection, book, seen))
        return [group_response(row, _size(row, book), [a for a in attempts if a.service_id == row.id]) for row in shown]

    async def find(self, key: str, book: Book, principal: Principal) -> tuple[Row[Any], dict[str, Any]] | None:
        """Return a group by id or name, deleted or not, with what is shown of it.

        `None` if there is no such group for the caller.
        """
        seen = self._sight.keys(principal)
        group = await reading(self._database, lambda connection: _one(connection, key, book, seen))
        if group is None:
            return None
        row, attempts = group
        return row, group_response(row, _size(row, book), attempts)


_Rows = Sequence[Row[Any]]


def _living(connection: Connection, book: Book, seen: Mapping[str, Any]) -> tuple[_Rows, _Rows]:
    """Read all groups of which something is left, and their attempts."""
    rows = connection.execute(_GROUPS, seen).all()
    shown = [row for row in rows if _size(row, book) > 1]
    return shown, connection.execute(_attempts([row.id for row in shown])).all() if shown else ()


def _one(connection: Connection, key: str, book: Book, seen: Mapping[str, Any]) -> tuple[Row[Any], _Rows] | None:
    rows = found(connection, key, seen)
    if not rows or _size(rows[0], book) <= 1:
        return None
    return rows[0], connection.execute(_attempts([rows[0].id])).all()


def group_response(row: Row[Any], size: int, attempts: Sequence[Row[Any]]) -> dict[str, Any]:
    """Show a group: each replica is a job of its own, on whichever node that runs."""
    # Of several attempts at a replica one that is ready speaks for it, else the newest.
    known = {a.replica: a for a in sorted(attempts, key=lambda a: (attempt_state(a) == "ready", a.incarnation))}
    return {
        "id": row.id,
        "name": row.name,
        "type": "replica_group",
        "recipe_name": row.recipe_name,
        "num_nodes": size,
        "replicas_per_node": 1,
        "total_replicas": size,
        "node_jobs": [_job(row, number, known.get(number)) for number in range(size)],
        "config": shown_config(row.config),
        "created_at": iso(row.created_at),
        "status": status_of(row),
    }


def group_status(group: dict[str, Any]) -> dict[str, Any]:
    """Count the replicas of a group, and say in one word how it is."""
    states = [replica["status"] for job in group["node_jobs"] for replica in job["replicas"]]
    ready, starting, pending, failed = (states.count(state) for state in _STATES)
    return {
        "group_id": group["id"],
        "overall_status": _overall(ready, starting + pending, failed),
        "total_replicas": len(states),
        "healthy_replicas": ready,
        "starting_replicas": starting,
        "pending_replicas": pending,
        "failed_replicas": failed,
    }


def running_jobs(group: dict[str, Any]) -> list[str]:
    """Return the ids of the Slurm jobs of replicas that have not failed."""
    return [
        job["job_id"]
        for job in group["node_jobs"]
        if job["job_id"] is not None and job["replicas"][0]["status"] != "failed"
    ]


def _overall(ready: int, coming: int, failed: int) -> str:
    if failed:
        return "degraded" if ready or coming else "failed"
    if coming:
        return "partial" if ready else "starting"
    return "healthy"


def _size(row: Row[Any], book: Book) -> int:
    """Return how many replicas are wanted; before the controller has looked, as many as the recipe says."""
    if row.replicas is not None:
        return int(row.replicas)
    recipe = book.find(row.recipe_name)
    return 1 if recipe is None else recipe.content.replicas


def _attempts(ids: list[str]) -> Select[Any]:
    """Select the attempts of these services that speak for their replicas: open ones, and the newest of each."""
    attempts = AttemptRow.__table__
    is_newest = (
        (attempts.c.service_id == _NEWEST.c.service_id)
        & (attempts.c.replica == _NEWEST.c.replica)
        & (attempts.c.incarnation == _NEWEST.c.incarnation)
    )
    return (
        select(attempts)
        .outerjoin(_NEWEST, is_newest)
        .where(attempts.c.service_id.in_(ids))
        .where(attempts.c.closed_at.is_(None) | _NEWEST.c.replica.is_not(None))
    )


def _job(row: Row[Any], number: int, attempt: Row[Any] | None) -> dict[str, Any]:
    job_id = None if attempt is None or attempt.job_id is None else str(attempt.job_id)
    replica = {
        "id": f"{row.id}-{number}",
        "job_id": job_id,
        "node_index": number,
        "replica_index": number,
        "port": None if attempt is None else attempt.port,
        "gpu_id": 0,
        "status": _state(row, attempt),
    }
    node = None if attempt is None else attempt.node
    return {"job_id": job_id, "node_index": number, "node": node, "replicas": [replica]}


def _state(row: Row[Any], attempt: Row[Any] | None) -> str:
    """Return pending, starting, ready or failed. One that has ended is tried again, unless its service has failed."""
    if attempt is None:
        return "failed" if status_of(row) == "failed" else "pending"
    state = attempt_state(attempt)
    if state != "ended":
        return state
    return "failed" if not is_wanted(row) or status_of(row) == "failed" else "pending"
