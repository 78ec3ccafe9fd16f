"""Keeping the routing table: read whole at first, then service by service as the change feed names them.

While the database is away the last table stands.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any

import msgspec
from sqlalchemy import Connection, Row, and_, bindparam, select

from api.contract.database import Database
from api.contract.recipes.aliases import aliases
from api.contract.recipes.spec import SpecHead
from api.contract.status import Condition, explanation, word
from api.contract.tables import EndpointRow, Service, ServiceStatus
from api.gateway.table import RoutingTable, ServedModel, routing_table
from api.web.bell import Bell
from api.web.belonging import Access, Belonging
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
        Service.config,
        Service.owner,
        Service.project,
        Service.access,
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

    def __init__(self, database: Database, feed: ChangeFeed, default: Access) -> None:
        """`default` is the access of services that say nothing of it."""
        super().__init__("the routing table")
        self._database = database
        self._feed = feed
        self._default = default
        self._position: int | None = None
        self._known: dict[str, ServedModel] = {}
        self.applied = Bell()
        """Rung when the table tells of more of the feed."""
        self.table: RoutingTable | None = None
        """`None` until the database has been read once. After the end the last one stands."""
        self.on_change: Callable[[], None] = _nothing
        """Is called when there is another table."""
        self.on_leaving: Callable[[Collection[str]], None] = _nothing
        """Is called with the tokens of attempts that have left the table."""

    @property
    def position(self) -> int:
        """The number of the feed up to which the table tells all; 0: there is none yet."""
        return self._position or 0

    async def follow_once(self) -> None:
        """Read what has changed, at first everything; wait for a change where nothing has."""
        if self._position is None:
            position = await self._feed.begin()
            await self._read(None)
            self._apply(position)
            return
        ring, reached = self._feed.bell.next, self._feed.position
        changes = self._feed.since(self._position)
        if changes == []:
            self._apply(reached)
            await ring.wait()
            return
        ids = None if changes is None else {change.service_id for change in changes}
        await self._read(ids if ids is not None and len(ids) <= MOST_AT_ONCE else None)
        self._apply(reached)

    def _apply(self, position: int) -> None:
        if position != self._position:
            self._position = position
            self.applied.ring()

    async def _read(self, ids: Collection[str] | None) -> None:
        rows = await reading(self._database, lambda connection: _rows(connection, ids))
        before = _tokens(self._known, ids)
        if ids is None:
            self._known = {}
        for service_id in ids or ():
            self._known.pop(service_id, None)
        self._known.update((service.id, service) for service in _served(rows, self._default))
        self.table = routing_table(self._known.values())
        self.known.set()
        self.on_change()
        if left := before - _tokens(self._known, ids):
            self.on_leaving(left)


def _nothing(*_: object) -> None:
    pass


def _tokens(known: Mapping[str, ServedModel], ids: Collection[str] | None) -> set[str]:
    """Return the tokens of the ready attempts of these services, or of all."""
    services = known.values() if ids is None else [known[id_] for id_ in ids if id_ in known]
    return {replica.token for service in services for replica in service.replicas}


def _rows(connection: Connection, ids: Collection[str] | None) -> Sequence[Row[Any]]:
    if ids is None:
        return connection.execute(_ALL).all()
    return connection.execute(_THESE, {"ids": list(ids)}).all()


def _served(rows: Iterable[Row[Any]], default: Access) -> Iterable[ServedModel]:
    """Yield the services to which requests are passed on."""
    for _, group in groupby(rows, key=lambda row: row.id):
        of_service = list(group)
        first = of_service[0]
        spec = msgspec.json.decode(first.spec, type=SpecHead)
        serves_model = spec.engine == "vllm" and spec.model is not None
        if not serves_model and not spec.exposed:
            continue
        is_wanted = first.desired_state == "running"
        conditions = msgspec.convert(first.conditions or (), tuple[Condition, ...])
        yield ServedModel(
            id=first.id,
            name=first.name,
            models=(spec.model, *spec.further_models) if serves_model and spec.model is not None else (),
            belonging=Belonging.of(first, default),
            aliases=tuple(aliases(first.config)),
            created_at=first.created_at,
            status=word(wanted=is_wanted, conditions=conditions),
            message=explanation(conditions),
            replicas=tuple(map(ReadyReplica.of, of_service)) if is_wanted and first.token is not None else (),
        )
