"""Keeping the routing table: read whole at first, then service by service as the change feed names them.

While the database is away the last table stands.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from itertools import groupby
from typing import Any

import msgspec
from sqlalchemy import Connection, Row, and_, bindparam, select

from api.contract.database import Database
from api.contract.recipes.spec import SpecHead
from api.contract.status import Condition, explanation, word
from api.contract.tables import EndpointRow, Service, ServiceStatus
from api.gateway.table import RoutingTable, ServedModel, routing_table
from api.web.change_feed import ChangeFeed
from api.web.follower import Follower
from api.web.replicas import ReadyReplica
from api.web.transactions import reading

MOST_AT_ONCE = 500
"""Services that are named in one statement; where more have changed, all are read."""

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


class RoutingTableReader(Follower):
    """Follows the feed from its beginning until it is closed; `table` is the newest."""

    def __init__(self, database: Database, feed: ChangeFeed) -> None:
        super().__init__("the routing table")
        self._database = database
        self._feed = feed
        self._position: int | None = None
        """The number of the feed up to which all is known."""
        self._known: dict[str, ServedModel] = {}
        self.table: RoutingTable | None = None
        """`None` until the database has been read once. After the end the last one stands."""

    async def follow_once(self) -> None:
        """Read what has changed, at first everything; wait for a change where nothing has."""
        if self._position is None:
            position = await self._feed.begin()
            await self._read(None)
            self._position = position
            return
        ring = self._feed.bell.next
        changes = self._feed.since(self._position)
        if changes == []:
            await ring.wait()
            return
        reached = changes[-1].seq if changes else self._feed.position
        ids = None if changes is None else {change.service_id for change in changes}
        await self._read(ids if ids is not None and len(ids) <= MOST_AT_ONCE else None)
        self._position = reached

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
            replicas=tuple(map(ReadyReplica.of, of_service)) if is_wanted and first.token is not None else (),
        )
