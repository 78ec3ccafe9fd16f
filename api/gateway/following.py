"""Keeping the routing table: read whole at first, then service by service as the change feed names them.

While the database is away the last table stands.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Collection, Iterable, Sequence
from itertools import groupby
from typing import Any

import msgspec
from msgspec import Struct
from sqlalchemy import Connection, Row, and_, bindparam, select

from api.contract.database import Database
from api.contract.status import Condition, explanation, word
from api.contract.tables import EndpointRow, Service, ServiceStatus
from api.gateway.table import RoutingTable, ServedModel, routing_table
from api.web.change_feed import RETRY_SECONDS, ChangeFeed
from api.web.engines import ReadyReplica
from api.web.errors import UnavailableError
from api.web.transactions import reading

MOST_AT_ONCE = 500
"""Services that are named in one statement; where more have changed, all are read."""

log = logging.getLogger(__name__)

_ALL = (
    select(
        Service.id,
        Service.name,
        Service.created_at,
        Service.desired_state,
        ServiceStatus.conditions,
        ServiceStatus.spec,
        EndpointRow.token,
        EndpointRow.replica,
        EndpointRow.models,
        EndpointRow.host,
        EndpointRow.port,
        EndpointRow.door,
    )
    .join(ServiceStatus, ServiceStatus.service_id == Service.id)
    .outerjoin(EndpointRow, and_(EndpointRow.service_id == Service.id, EndpointRow.state == "ready"))
    .where(Service.deletion_requested_at.is_(None), ServiceStatus.spec.is_not(None))
    .order_by(Service.id, EndpointRow.replica, EndpointRow.token)
)
_THESE = _ALL.where(Service.id.in_(bindparam("ids", expanding=True)))


class SpecHead(Struct):
    """What is needed of a launch spec."""

    engine: str
    model: str | None = None


class RoutingTableReader:
    """Follows the feed from its beginning until it is closed; `table` is the newest."""

    def __init__(self, database: Database, feed: ChangeFeed) -> None:
        self._database = database
        self._feed = feed
        self._known: dict[str, ServedModel] = {}
        self._following: asyncio.Task[None] | None = None
        self.table: RoutingTable | None = None
        """`None` until the database has been read once."""

    def begin(self) -> None:
        """Begin to follow."""
        self._following = asyncio.create_task(self._follow())

    async def close(self) -> None:
        """Stop; the table stays."""
        if self._following is not None:
            self._following.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._following

    async def _follow(self) -> None:
        position: int | None = None
        while not self._feed.is_closed:
            try:
                position = await self._look(position)
            except UnavailableError as error:
                log.warning("the routing table can't be read: %s", error)
                await asyncio.sleep(RETRY_SECONDS)
            except Exception:
                log.exception("the routing table can't be read")
                await asyncio.sleep(RETRY_SECONDS)

    async def _look(self, position: int | None) -> int:
        """Read what has changed since a number, or everything; wait for a change where nothing has."""
        if position is None:
            position = await self._feed.begin()
            await self._read(None)
            return position
        ring = self._feed.bell.next
        changes = self._feed.since(position)
        if changes == []:
            await ring.wait()
            return position
        reached = changes[-1].seq if changes else self._feed.position
        ids = None if changes is None else {change.service_id for change in changes}
        await self._read(ids if ids is not None and len(ids) <= MOST_AT_ONCE else None)
        return reached

    async def _read(self, ids: Collection[str] | None) -> None:
        rows = await reading(self._database, lambda connection: _rows(connection, ids))
        if ids is None:
            self._known = {}
        for service_id in ids or ():
            self._known.pop(service_id, None)
        self._known.update((service.id, service) for service in _served(rows))
        self.table = routing_table(self._known.values())


def _rows(connection: Connection, ids: Collection[str] | None) -> Sequence[Row[Any]]:
    if ids is None:
        return connection.execute(_ALL).all()
    return connection.execute(_THESE, {"ids": list(ids)}).all()


def _served(rows: Iterable[Row[Any]]) -> Iterable[ServedModel]:
    """Yield the services whose engines serve models."""
    for _, group in groupby(rows, key=lambda row: row.id):
        of_service = list(group)
        first = of_service[0]
        spec = msgspec.json.decode(first.spec, type=SpecHead)
        if spec.engine != "vllm" or spec.model is None:
            continue
        is_wanted = first.desired_state == "running"
        conditions = msgspec.convert(first.conditions or (), tuple[Condition, ...])
        yield ServedModel(
            id=first.id,
            name=first.name,
            models=(spec.model,),
            created_at=first.created_at,
            status=word(wanted=is_wanted, conditions=conditions),
            message=explanation(conditions),
            replicas=tuple(map(_replica, of_service)) if is_wanted and first.token is not None else (),
        )


def _replica(row: Row[Any]) -> ReadyReplica:
    return ReadyReplica(
        token=row.token,
        name=f"{row.id}-{row.replica}",
        models=tuple(row.models),
        host=row.host,
        port=row.port,
        door=row.door,
    )
