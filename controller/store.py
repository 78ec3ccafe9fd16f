"""The database as the controller uses it. Every write is one immediate transaction, fenced by the term."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import fields
from typing import Any, cast

import msgspec
from sqlalchemy import (
    BindParameter,
    Connection,
    Row,
    RowMapping,
    Table,
    and_,
    bindparam,
    delete,
    func,
    insert,
    or_,
    select,
    update,
)
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.orm import aliased

from api.contract.database import Database, cause
from api.contract.feed import wakeups
from api.contract.job.words import Lane
from api.contract.recipes.spec import encode_spec
from api.contract.status import Condition
from api.contract.tables import (
    AttemptRow,
    EndpointRow,
    EventRow,
    Feed,
    GatewayRow,
    InstallationRow,
    Service,
    ServiceStatus,
)
from controller.core.attempt import Attempt, SendOutcome, Sent
from controller.core.lead import Way
from controller.core.plan import Plan
from controller.core.published import Endpoint, Event, Status
from controller.failpoints import reach
from controller.lease import fence, look_at_fence
from controller.ports import Gateway, Record, Term, Tracked
from controller.wanted import ServiceRow, Wanted

log = logging.getLogger(__name__)

MOST_WAYS = 5000

ATTEMPT_FIELDS = tuple(f.name for f in fields(Attempt))
_WAY_FIELDS = tuple(f.name for f in fields(Way))
MOST_PARAMETERS = 500

_KEY: BindParameter[str] = bindparam("key")
_SERVICE = (
    select(Service.__table__, ServiceStatus.__table__)
    .outerjoin(ServiceStatus, ServiceStatus.service_id == Service.id)
    .where(Service.id == _KEY)
)
_newest = (
    select(AttemptRow.replica, func.max(AttemptRow.incarnation).label("incarnation"))
    .where(AttemptRow.service_id == _KEY)
    .group_by(AttemptRow.replica, AttemptRow.lane)
    .subquery()
)
_ATTEMPTS = (
    select(AttemptRow.__table__)
    .outerjoin(_newest, and_(AttemptRow.replica == _newest.c.replica, AttemptRow.incarnation == _newest.c.incarnation))
    .where(AttemptRow.service_id == _KEY, or_(AttemptRow.gone_at.is_(None), _newest.c.replica.is_not(None)))
    .order_by(AttemptRow.replica, AttemptRow.incarnation)
)
"""The attempts that are not gone, and the newest of each replica's lane."""
_ENDPOINTS = (
    select(EndpointRow.__table__).where(EndpointRow.service_id == _KEY).order_by(EndpointRow.replica, EndpointRow.token)
)

_PLACED = (
    select(AttemptRow.__table__)
    .where(AttemptRow.node.is_not(None), or_(AttemptRow.closed_at.is_(None), AttemptRow.closed_at > bindparam("since")))
    .order_by(AttemptRow.intent_at.desc())
    .limit(MOST_WAYS)
)

_forerunner = aliased(AttemptRow)
_WAYS = (
    select(AttemptRow.digest, AttemptRow.intent_at, AttemptRow.started_at, AttemptRow.ready_at)
    .add_columns(_forerunner.closed_at, _forerunner.gone_at)
    .outerjoin(
        _forerunner,
        and_(
            AttemptRow.beside.is_not(None),
            _forerunner.service_id == AttemptRow.service_id,
            _forerunner.replica == AttemptRow.replica,
            _forerunner.incarnation == AttemptRow.incarnation - 1,
        ),
    )
    .where(AttemptRow.started_at.is_not(None), AttemptRow.intent_at > bindparam("since"))
    .order_by(AttemptRow.intent_at.desc())
    .limit(MOST_WAYS)
)
_attempts, _statuses, _events = (cast(Table, kind.__table__) for kind in (AttemptRow, ServiceStatus, EventRow))
_ADD_ATTEMPT = insert(_attempts)
_CHANGE_ATTEMPT = (
    update(_attempts)
    .where(AttemptRow.token == _KEY)
    .values({name: bindparam(name) for name in ATTEMPT_FIELDS if name != "token"})
)
_ADD_STATUS = insert(_statuses)
_CHANGE_STATUS = (
    update(_statuses)
    .where(ServiceStatus.service_id == _KEY)
    .values({c.name: bindparam(c.name) for c in _statuses.columns if c.name != "service_id"})
)
_ADD_EVENT = insert(_events)
_COUNT_EVENT = (
    update(_events)
    .where(
        EventRow.id == select(func.max(EventRow.id)).where(EventRow.service_id == _KEY).scalar_subquery(),
        EventRow.reason == bindparam("same_reason"),
        EventRow.message == bindparam("same_message"),
    )
    .values(count=EventRow.count + 1, last_at=bindparam("last"))
)


class SqlStore:
    """The store on SQLite or PostgreSQL."""

    def __init__(self, database: Database, wanted: Wanted) -> None:
        self._database = database
        self._wanted = wanted

    async def keys(self) -> tuple[str, ...]:
        """Return the ids of all services."""
        return tuple(await self._database.read(lambda connection: connection.scalars(select(Service.id)).all()))

    async def changed(self, since: int) -> tuple[int, tuple[str, ...]]:
        """Return the feed's position and the services that people changed after `since`."""
        query = select(Service.change_seq, Service.id).where(Service.change_seq > since).order_by(Service.change_seq)
        rows = await self._database.read(lambda connection: connection.execute(query).all())
        return (rows[-1].change_seq if rows else since), tuple(row.id for row in rows)

    def wakeups(self) -> AsyncIterator[None]:
        """Wake up whenever the feed may have grown."""
        return wakeups(self._database)

    async def load(self, key: str) -> Record | None:
        """Read one service: what is wanted, its status, its endpoints, its attempts."""
        found = await self._database.read(lambda connection: _rows(connection, key))
        if found is None:
            return None
        row, attempts, endpoints = found
        return Record(
            desired=self._wanted.of(service_row(row)),
            status=_status(row),
            endpoints=tuple(_endpoint(e) for e in endpoints),
            attempts=tuple(_attempt(a) for a in attempts),
        )

    async def record(self, term: Term, record: Record, plan: Plan, now: float) -> None:
        """Write the plan; raises `DeposedError`. Nothing is written where nothing changed.

        A plan of actions alone writes nothing, but whether they may be carried out is for the fence to say.
        """
        if plan.is_empty:
            return
        if not plan.changes:
            await look_at_fence(self._database, term)
            return
        key, known = record.desired.service_id, {a.token for a in record.attempts}
        commit = _name(plan, known)
        async with self._database.write() as connection:
            await fence(connection, term)
            for attempt in plan.attempts:
                await _write_attempt(connection, attempt, exists=attempt.token in known)
            if plan.endpoints is not None:
                await _write_endpoints(connection, key, record.endpoints, plan.endpoints)
            await _number_drains(connection, plan.attempts)
            if plan.status is not None:
                await _write_status(connection, record, plan.status, now)
            for event in plan.events:
                await _write_event(connection, key, event, now)
            reach(f"before {commit}")
        reach(f"after {commit}")

    async def note(self, term: Term, token: str, sent: Sent, now: float) -> None:
        """Write the job id that sbatch answered. If the database is away, looking finds it; raises `DeposedError`."""
        if sent.outcome is not SendOutcome.ACCEPTED:
            return
        try:
            await self._note(term, token, sent, now)
        except (SQLAlchemyError, OSError) as error:
            log.warning("the job id could not be written down", extra={"job_id": sent.job_id, "error": cause(error)})

    async def _note(self, term: Term, token: str, sent: Sent, now: float) -> None:
        mine = and_(AttemptRow.token == token, AttemptRow.job_id.is_(None))
        query = update(AttemptRow).where(mine).values(job_id=sent.job_id, submitted_at=now)
        async with self._database.write() as connection:
            await fence(connection, term)
            row = (await connection.execute(query.returning(AttemptRow.service_id, AttemptRow.replica))).one_or_none()
            if row is not None:
                event = Event(reason="Submitted", message=f"Replica {row.replica}: it is job {sent.job_id}.")
                await _write_event(connection, row.service_id, event, now)
            reach("before note")
        reach("after note")

    async def tracked(self) -> tuple[Tracked, ...]:
        """Return all attempts that are not gone."""
        query = select(AttemptRow.__table__).where(AttemptRow.gone_at.is_(None))
        rows = await self._database.read(lambda connection: connection.execute(query).mappings().all())
        return tuple(Tracked.of(_attempt(row)) for row in rows)

    async def known(self, tokens: Collection[str]) -> Mapping[str, bool]:
        """Return, for those of the tokens that the database has ever heard of, whether their attempt is closed."""
        return await self._database.read(lambda connection: _known(connection, sorted(tokens)))

    async def placed(self, since: float) -> Sequence[Attempt]:
        """Return the newest attempts that had a node and were not closed before `since`."""
        rows = await self._database.read(
            lambda connection: connection.execute(_PLACED, {"since": since}).mappings().all()
        )
        return [_attempt(row) for row in rows]

    async def ways(self, since: float) -> Sequence[tuple[str, Way]]:
        """Return the newest jobs that began, of those wanted after `since`, each with the digest of its launch."""
        rows = await self._database.read(lambda connection: connection.execute(_WAYS, {"since": since}).all())
        return [(digest, Way(**dict(zip(_WAY_FIELDS, times, strict=True)))) for digest, *times in rows]

    async def gateways(self) -> tuple[Gateway, ...]:
        """Return all gateways that have rows."""
        query = select(GatewayRow.id, GatewayRow.applied, GatewayRow.signs)
        rows = await self._database.read(lambda connection: connection.execute(query).mappings().all())
        return tuple(Gateway(**row) for row in rows)

    async def forget_gateways(self, ids: Collection[str]) -> None:
        """Remove the rows of gateways."""
        async with self._database.write() as connection:
            await connection.execute(delete(GatewayRow).where(GatewayRow.id.in_(ids)))


def _name(plan: Plan, known: Collection[str]) -> str:
    """Name the commit of a plan by the weightiest thing in it."""
    if any(a.token not in known for a in plan.attempts):
        return "record an intent"
    return "record a closing" if any(not a.open for a in plan.attempts) else "record"


async def installation_id(database: Database) -> str:
    """Return the id that the first migration gave this installation."""
    return str(await database.read(lambda connection: connection.execute(select(InstallationRow.id)).scalar_one()))


def _rows(connection: Connection, key: str) -> tuple[Row[Any], Sequence[RowMapping], Sequence[Row[Any]]] | None:
    """Return a service with its status, its attempts and its endpoints."""
    service = connection.execute(_SERVICE, {"key": key}).one_or_none()
    if service is None:
        return None
    attempts = connection.execute(_ATTEMPTS, {"key": key}).mappings().all()
    return service, attempts, connection.execute(_ENDPOINTS, {"key": key}).all()


def _known(connection: Connection, tokens: Sequence[str]) -> dict[str, bool]:
    found: dict[str, bool] = {}
    for start in range(0, len(tokens), MOST_PARAMETERS):
        part = tokens[start : start + MOST_PARAMETERS]
        query = select(AttemptRow.token, AttemptRow.closed_at).where(AttemptRow.token.in_(part))
        found.update({row.token: row.closed_at is not None for row in connection.execute(query)})
    return found


def service_row(row: Any) -> ServiceRow:
    """Read a row of `services` beside `observed_generation` and `spec` of its status."""
    fresh = row.observed_generation == row.generation and row.spec is not None
    return ServiceRow(
        id=row.id,
        name=row.name,
        recipe_name=row.recipe_name,
        config=row.config,
        replicas=row.replicas,
        desired_state=row.desired_state,
        deletion_requested=row.deletion_requested_at is not None,
        generation=row.generation,
        stored_spec=row.spec if fresh else None,
        rollout_paused=bool(row.rollout_paused),
    )


def _status(row: Any) -> Status:
    if row.observed_generation is None:
        return Status()
    return Status(
        observed_generation=row.observed_generation,
        replicas=row.wanted_replicas,
        target=row.target or 0,
        ready_replicas=row.ready_replicas,
        conditions=msgspec.convert(row.conditions, tuple[Condition, ...]),
    )


def _endpoint(row: Any) -> Endpoint:
    return Endpoint(
        token=row.token,
        replica=row.replica,
        models=tuple(row.models),
        host=row.host,
        port=row.port,
        door=row.door,
        ready=row.state == "ready",
    )


def _attempt(row: Mapping[Any, Any]) -> Attempt:
    return Attempt(**{name: row[name] for name in ATTEMPT_FIELDS} | {"lane": Lane(row["lane"])})


async def _write_attempt(connection: AsyncConnection, attempt: Attempt, *, exists: bool) -> None:
    values = {name: getattr(attempt, name) for name in ATTEMPT_FIELDS}
    if exists:
        values["key"] = values.pop("token")
        await connection.execute(_CHANGE_ATTEMPT, values)
    else:
        await connection.execute(_ADD_ATTEMPT, values)


async def _number_drains(connection: AsyncConnection, attempts: Collection[Attempt]) -> None:
    """Write down at which number of the feed attempts began to drain: their endpoints say so from there on."""
    tokens = [a.token for a in attempts if a.draining_since is not None and a.draining_feed is None]
    if tokens:
        seq = select(Feed.seq).scalar_subquery()
        await connection.execute(update(AttemptRow).where(AttemptRow.token.in_(tokens)).values(draining_feed=seq))


async def _write_endpoints(
    connection: AsyncConnection, key: str, before: Collection[Endpoint], after: Collection[Endpoint]
) -> None:
    known, wanted = {e.token: e for e in before}, {e.token: e for e in after}
    left = known.keys() - wanted.keys()
    if left:
        await connection.execute(delete(EndpointRow).where(EndpointRow.token.in_(left)))
    for token, endpoint in wanted.items():
        if known.get(token) == endpoint:
            continue
        values = {
            "replica": endpoint.replica,
            "models": list(endpoint.models),
            "host": endpoint.host,
            "port": endpoint.port,
            "door": endpoint.door,
            "state": "ready" if endpoint.ready else "unready",
        }
        if token in known:
            await connection.execute(update(EndpointRow).where(EndpointRow.token == token).values(**values))
        else:
            await connection.execute(insert(EndpointRow).values(token=token, service_id=key, **values))


async def _write_status(connection: AsyncConnection, record: Record, status: Status, now: float) -> None:
    desired = record.desired
    values = {
        "observed_generation": status.observed_generation,
        "wanted_replicas": status.replicas,
        "target": status.target,
        "ready_replicas": status.ready_replicas,
        "conditions": msgspec.to_builtins(status.conditions),
        "spec": encode_spec(desired.spec).decode() if desired.spec is not None else None,
        "digest": desired.digest,
        "updated_at": now,
    }
    if (await connection.execute(_CHANGE_STATUS, {"key": desired.service_id, **values})).rowcount == 0:
        await connection.execute(_ADD_STATUS, {"service_id": desired.service_id, **values})


async def _write_event(connection: AsyncConnection, key: str, event: Event, now: float) -> None:
    """Count the newest line up if it says the same, else add one."""
    told = {"reason": event.reason, "message": event.message}
    again = await connection.execute(
        _COUNT_EVENT, {"key": key, "last": now, **{f"same_{k}": v for k, v in told.items()}}
    )
    if again.rowcount:
        return
    kind = "Warning" if event.warning else "Normal"
    values = {"service_id": key, "type": kind, **told, "count": 1, "first_at": now, "last_at": now}
    await connection.execute(_ADD_EVENT, values)
