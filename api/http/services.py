"""The services in the database: what is wanted is written here, what is comes from the controller's tables.

Few statements a request: each costs more than the whole framework (measured).
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

from sqlalchemy import BindParameter, Row, Select, and_, bindparam, case, func, insert, or_, select, update
from sqlalchemy.exc import IntegrityError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.orm import aliased

from api.contract.database import Database, cause
from api.contract.identity import new_id
from api.contract.tables import AttemptRow, Endpoint, Lease, Service, ServiceStatus, UserEvent
from api.http.bodies import ServiceRequest
from api.http.errors import ApiError, UnavailableError

LONGEST_KEY = 160
RETRY_SECONDS = 5

_one_ready = aliased(Endpoint)
_VIEW = (
    select(
        Service.id,
        Service.name,
        Service.recipe_name,
        Service.config,
        func.coalesce(Service.replicas, ServiceStatus.wanted_replicas).label("replicas"),
        Service.desired_state,
        Service.generation,
        Service.created_at,
        Service.deletion_requested_at,
        ServiceStatus.observed_generation,
        ServiceStatus.ready_replicas,
        ServiceStatus.conditions,
        Endpoint.host,
        Endpoint.port,
    )
    .select_from(Service)
    .outerjoin(ServiceStatus, ServiceStatus.service_id == Service.id)
    .outerjoin(
        Endpoint,
        Endpoint.token
        == select(_one_ready.token)
        .where(_one_ready.service_id == Service.id, _one_ready.state == "ready")
        .order_by(_one_ready.replica, _one_ready.token)
        .limit(1)
        .correlate(Service)
        .scalar_subquery(),
    )
)
_ENGINE_VIEW = _VIEW.add_columns(ServiceStatus.spec)
_ROUTES = (
    select(
        Service.id,
        Service.recipe_name,
        Service.desired_state,
        Service.deletion_requested_at,
        ServiceStatus.conditions,
        ServiceStatus.spec,
        ServiceStatus.digest,
        Endpoint.token,
        Endpoint.replica,
        Endpoint.models,
        Endpoint.host,
        Endpoint.port,
    )
    .select_from(Service)
    .outerjoin(ServiceStatus, ServiceStatus.service_id == Service.id)
    .outerjoin(Endpoint, and_(Endpoint.service_id == Service.id, Endpoint.state == "ready"))
)
_OLDEST_FIRST = (Service.created_at, Service.change_seq, Service.id)
_KEY: BindParameter[str] = bindparam("key")


def _living(statement: Select[Any]) -> Select[Any]:
    """Find by id, deleted or not, or by the name of a living service; the id goes first."""
    return statement.where(
        or_(Service.id == _KEY, and_(Service.name == _KEY, Service.deletion_requested_at.is_(None)))
    ).order_by(case((Service.id == _KEY, 0), else_=1))


def _deleted(statement: Select[Any]) -> Select[Any]:
    """Find by the name of a deleted service; the newest goes first."""
    return statement.where(Service.name == _KEY).order_by(Service.created_at.desc(), Service.id)


_LIST = _VIEW.order_by(*_OLDEST_FIRST)
_LIST_ENGINES = _ENGINE_VIEW.order_by(*_OLDEST_FIRST)
_FIND = (_living(_VIEW), _deleted(_VIEW))
_FIND_ROUTES = (_living(_ROUTES), _deleted(_ROUTES))

_newer = aliased(AttemptRow)
_NEWEST_TOKENS = (
    select(AttemptRow.token)
    .where(
        AttemptRow.service_id == _KEY,
        AttemptRow.incarnation
        == select(func.max(_newer.incarnation))
        .where(_newer.service_id == AttemptRow.service_id, _newer.replica == AttemptRow.replica)
        .correlate(AttemptRow)
        .scalar_subquery(),
    )
    .order_by(AttemptRow.replica)
)
_ADD = insert(Service)
_ADD_EVENT = insert(UserEvent)
_ADD_FIRST_EVENT = _ADD_EVENT.returning(
    # The trigger has set it by now; RETURNING of the first INSERT would show the value from before.
    select(Service.created_at).where(Service.id == bindparam("created")).scalar_subquery()
)
_DELETE = (
    update(Service)
    .where(Service.id == _KEY, Service.deletion_requested_at.is_(None))
    .values(deletion_requested_at=bindparam("now"))
)
_LEADER = select(Lease.epoch, Lease.holder, Lease.host, Lease.renewed_at).where(Lease.name == "controller")


class Services:
    """Reads and writes services. Wherever a key is asked for, an id or a name will do.

    All methods raise `UnavailableError` while the database is locked by others for long, or does not answer.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def list_all(self) -> Sequence[Row[Any]]:
        """Return all services, the newest last."""
        async with _answering(self._database.read()) as connection:
            return (await connection.execute(_LIST)).all()

    async def list_with_spec(self) -> Sequence[Row[Any]]:
        """Return all services with `spec`, what the controller resolved."""
        async with _answering(self._database.read()) as connection:
            return (await connection.execute(_LIST_ENGINES)).all()

    async def find(self, key: str) -> Row[Any] | None:
        """Return one service; a deleted one too, until it is purged."""
        async with _answering(self._database.read()) as connection:
            rows = await _found(connection, _FIND, key)
            return rows[0] if rows else None

    async def find_routes(self, key: str) -> Sequence[Row[Any]]:
        """Return one row for each ready replica of a service; one without a host if none is; none if it is unknown."""
        async with _answering(self._database.read()) as connection:
            rows = await _found(connection, _FIND_ROUTES, key)
            return [row for row in rows if row.id == rows[0].id]

    async def find_with_tokens(self, key: str) -> tuple[Row[Any] | None, Sequence[str]]:
        """Return a service and the token of the newest attempt of each of its replicas, in their order."""
        async with _answering(self._database.read()) as connection:
            rows = await _found(connection, _FIND, key)
            if not rows:
                return None, ()
            tokens = await connection.execute(_NEWEST_TOKENS, {"key": rows[0].id})
            return rows[0], tokens.scalars().all()

    async def create(self, request: ServiceRequest, recipe: str, replicas: int | None) -> tuple[str, str, float]:
        """Add a service of a recipe; return its id, its name and when it was made.

        Raises `ApiError`: 409 if the name is taken, 422 if a constraint of the table refuses the row.
        """
        service_id = new_id()
        name = request.name or f"{recipe}-{service_id}"
        row = {
            "id": service_id,
            "name": name,
            "recipe_name": request.recipe_name,
            "config": request.config,
            "replicas": replicas,
        }
        event = _event(service_id, "create", f"{name} was created from {request.recipe_name}.")
        try:
            async with _answering(self._database.write()) as connection:
                await connection.execute(_ADD, row)
                created_at = (await connection.execute(_ADD_FIRST_EVENT, {**event, "created": service_id})).scalar_one()
        except IntegrityError as error:
            raise _refused(error, name) from None
        return service_id, name, created_at

    async def delete(self, service_id: str, name: str) -> bool:
        """Mark a service as deleted; False if it was already."""
        async with _answering(self._database.write()) as connection:
            marked = await connection.execute(_DELETE, {"key": service_id, "now": time.time()})
            if marked.rowcount == 0:
                return False
            await connection.execute(_ADD_EVENT, _event(service_id, "delete", f"{name} was deleted."))
            return True

    async def leader(self) -> Row[int, str | None, str | None, float] | None:
        """Return the epoch and the host of the controller that leads or led last, and when it renewed its lease."""
        async with _answering(self._database.read()) as connection:
            return (await connection.execute(_LEADER)).one_or_none()


@asynccontextmanager
async def _answering(transaction: AbstractAsyncContextManager[AsyncConnection]) -> AsyncIterator[AsyncConnection]:
    """Run a transaction; a database that does not answer is not an error of ours."""
    try:
        async with transaction as connection:
            yield connection
    except (OperationalError, InterfaceError, PoolTimeoutError, OSError) as error:
        detail = f"The database is busy or can't be reached ({cause(error)}). Try again in a moment."
        raise UnavailableError(detail, retry_after=RETRY_SECONDS) from error


async def _found(
    connection: AsyncConnection, statements: tuple[Select[Any], Select[Any]], key: str
) -> Sequence[Row[Any]]:
    if not 0 < len(key) <= LONGEST_KEY or "\0" in key:
        return ()
    for statement in statements:
        rows: Sequence[Row[Any]] = (await connection.execute(statement, {"key": key})).all()
        if rows:
            return rows
    return ()


def _event(service_id: str, action: str, message: str) -> dict[str, Any]:
    return {"service_id": service_id, "action": action, "message": message, "at": time.time()}


def _refused(error: IntegrityError, name: str) -> ApiError:
    text = cause(error)
    if "services.name" in text or "uq_services_living_name" in text:
        return ApiError(409, f"The name {name} is taken by another service. Choose another, or stop that one first.")
    return ApiError(422, f"The database refuses this service: {text}.")
