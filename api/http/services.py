"""The services in the database: what is wanted is written here, what is comes from the controller's tables.

Few statements a request: each costs more than the whole framework (measured).
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import BindParameter, Connection, Row, Select, and_, bindparam, case, func, insert, or_, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import aliased

from api.contract.database import Database, cause
from api.contract.identity import new_id
from api.contract.tables import AttemptRow, EndpointRow, LeaseRow, Service, ServiceStatus, UserEvent
from api.http.idempotency import Once, answered, remember
from api.http.listing import IS_LEFT, ListQuery
from api.http.requests import ServiceRequest
from api.http.sight import IS_SEEN, Sight
from api.http.wire import ServiceResponse, new_service_response
from api.web.belonging import Access
from api.web.errors import ApiError
from api.web.principal import Principal
from api.web.transactions import reading, writing

LONGEST_KEY = 160

_one_ready = aliased(EndpointRow)
VIEW = (
    select(
        Service.id,
        Service.name,
        Service.recipe_name,
        Service.config,
        func.coalesce(Service.replicas, ServiceStatus.wanted_replicas).label("replicas"),
        Service.replicas.label("own_replicas"),
        Service.desired_state,
        Service.generation,
        Service.version,
        Service.created_at,
        Service.updated_at,
        Service.deletion_requested_at,
        Service.owner,
        Service.project,
        Service.access,
        ServiceStatus.observed_generation,
        ServiceStatus.ready_replicas,
        ServiceStatus.conditions,
        EndpointRow.host,
        EndpointRow.port,
        EndpointRow.door,
        EndpointRow.models,
        # In what `encode_spec` writes no text of anybody's can look like this: its quotes are escaped.
        and_(EndpointRow.door.is_not(None), ServiceStatus.spec.contains('"exposed":true')).label("is_exposed"),
    )
    .select_from(Service)
    .outerjoin(ServiceStatus, ServiceStatus.service_id == Service.id)
    .outerjoin(
        EndpointRow,
        EndpointRow.token
        == select(_one_ready.token)
        .where(_one_ready.service_id == Service.id, _one_ready.state == "ready")
        .order_by(_one_ready.replica, _one_ready.token)
        .limit(1)
        .correlate(Service)
        .scalar_subquery(),
    )
)
_ENGINE_VIEW = VIEW.add_columns(ServiceStatus.spec)
_ROUTES = (
    select(
        Service.id,
        Service.name,
        Service.recipe_name,
        Service.desired_state,
        Service.deletion_requested_at,
        ServiceStatus.conditions,
        ServiceStatus.spec,
        ServiceStatus.digest,
        EndpointRow.token,
        EndpointRow.replica,
        EndpointRow.models,
        EndpointRow.host,
        EndpointRow.port,
        EndpointRow.door,
    )
    .select_from(Service)
    .outerjoin(ServiceStatus, ServiceStatus.service_id == Service.id)
    .outerjoin(EndpointRow, and_(EndpointRow.service_id == Service.id, EndpointRow.state == "ready"))
)
_OLDEST_FIRST = (Service.created_at, Service.change_seq, Service.id)
_KEY: BindParameter[str] = bindparam("key")


def _living(statement: Select[Any]) -> Select[Any]:
    """Find by id, deleted or not, or by the name of a living service; the id goes first."""
    return statement.where(
        IS_SEEN, or_(Service.id == _KEY, and_(Service.name == _KEY, Service.deletion_requested_at.is_(None)))
    ).order_by(case((Service.id == _KEY, 0), else_=1))


def _ending(statement: Select[Any]) -> Select[Any]:
    """Find by the name of a deleted service of which something is left; the newest goes first."""
    return _once(statement).where(IS_LEFT)


def _once(statement: Select[Any]) -> Select[Any]:
    """Find by a name that a service had once; the newest goes first."""
    return statement.where(IS_SEEN, Service.name == _KEY).order_by(Service.created_at.desc(), Service.id)


_LIST = VIEW.where(IS_SEEN, IS_LEFT).order_by(*_OLDEST_FIRST)
_LIST_ENGINES = _ENGINE_VIEW.where(IS_SEEN, IS_LEFT).order_by(*_OLDEST_FIRST)
_FIND = (_living(VIEW), _ending(VIEW))
_FIND_DELETED = (_living(VIEW), _once(VIEW))
_FIND_ROUTES = (_living(_ROUTES), _ending(_ROUTES))

_READY = (
    select(
        Service.id,
        Service.name,
        Service.recipe_name,
        EndpointRow.replica,
        EndpointRow.models,
        EndpointRow.host,
        EndpointRow.port,
        EndpointRow.door,
    )
    .join(EndpointRow, EndpointRow.service_id == Service.id)
    .where(
        IS_SEEN,
        EndpointRow.state == "ready",
        Service.deletion_requested_at.is_(None),
        Service.desired_state == "running",
    )
    .order_by(Service.created_at, Service.id, EndpointRow.replica, EndpointRow.token)
)
_TOKENS = (
    select(AttemptRow.replica, AttemptRow.incarnation, AttemptRow.token)
    .where(AttemptRow.service_id == _KEY)
    .order_by(AttemptRow.replica, AttemptRow.incarnation)
)
_ADD = insert(Service)
ADD_EVENT = insert(UserEvent)
_ADD_FIRST_EVENT = ADD_EVENT.returning(
    # The trigger has set it by now; RETURNING of the first INSERT would show the value from before.
    select(Service.created_at).where(Service.id == bindparam("created")).scalar_subquery()
)
_DELETE = (
    update(Service)
    .where(Service.id == _KEY, Service.deletion_requested_at.is_(None))
    .values(deletion_requested_at=bindparam("now"))
)
_LEADER = select(LeaseRow.epoch, LeaseRow.holder, LeaseRow.host, LeaseRow.renewed_at).where(
    LeaseRow.name == "controller"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class NewService:
    """A service that is asked for, found to be launchable."""

    request: ServiceRequest
    recipe: str
    """The name that its recipe gives itself."""
    owner: str | None
    project: str | None
    access: Access | None
    replicas: int | None
    """`None`: as many as the recipe says."""
    warnings: Sequence[str] = ()

    def row(self) -> dict[str, Any]:
        """Return it as its table holds it, under a new id."""
        service_id = new_id()
        return {
            "id": service_id,
            "name": self.request.name or f"{self.recipe}-{service_id}",
            "recipe_name": self.request.recipe_name,
            "config": self.request.config,
            "replicas": self.replicas,
            "owner": self.owner,
            "project": self.project,
            "access": None if self.access is None else self.access.value,
        }

    def answer(self, row: Mapping[str, Any], created_at: float) -> ServiceResponse:
        """Return what is answered to who asked for it."""
        return new_service_response(row, created_at, self.warnings)


class Services:
    """Reads and writes services. Wherever a key is asked for, an id or a name will do.

    To who reads, others than those that they see are not there: each method that reads is told who that is.

    All methods raise `UnavailableError` while the database is locked by others for long, or does not answer.
    """

    def __init__(self, database: Database, sight: Sight) -> None:
        self._database = database
        self.sight = sight

    async def list_all(self, principal: Principal) -> Sequence[Row[Any]]:
        """Return all services of which something is left, the newest last."""
        return await self._all(_LIST, principal)

    async def list_page(self, listing: ListQuery, principal: Principal) -> tuple[Sequence[Row[Any]], str | None]:
        """Return some of the services, and the cursor that leads on if there are more."""
        rows = await self._all(listing.applied(VIEW.where(IS_SEEN)), principal)
        if listing.limit is None or len(rows) <= listing.limit:
            return rows, None
        return rows[: listing.limit], listing.cursor(rows[listing.limit - 1])

    async def list_with_spec(self, principal: Principal) -> Sequence[Row[Any]]:
        """Return the same with `spec`, what the controller resolved."""
        return await self._all(_LIST_ENGINES, principal)

    async def find(self, key: str, principal: Principal) -> Row[Any] | None:
        """Return one service; a deleted one too: by id until it is purged, by name while something of it is left."""
        rows = await self._found(key, principal, _FIND)
        return rows[0] if rows else None

    async def find_deletable(self, key: str, principal: Principal) -> Row[Any] | None:
        """Return one service, also by a name that it had until it was deleted: a deletion can be asked for again."""
        rows = await self._found(key, principal, _FIND_DELETED)
        return rows[0] if rows else None

    async def find_routes(self, key: str, principal: Principal) -> Sequence[Row[Any]]:
        """Return one row for each ready replica of a service; one without a host if none is; none if it is unknown."""
        rows = await self._found(key, principal, _FIND_ROUTES)
        return [row for row in rows if row.id == rows[0].id]

    async def ready_endpoints(self, principal: Principal) -> Sequence[Any]:
        """Return each ready replica of all services that are wanted."""
        return await self._all(_READY, principal)

    async def attempts(self, service_id: str) -> Sequence[Row[int, int, str]]:
        """Return replica, incarnation and token of all attempts of a service, in this order."""
        return await reading(self._database, lambda connection: connection.execute(_TOKENS, {"key": service_id}).all())

    async def answered(self, once: Once) -> ServiceResponse | None:
        """Return what was answered to this request before; raises `InvalidError` if its key is another's."""
        return await reading(self._database, lambda connection: answered(connection, once, time.time()))

    async def create(self, wish: NewService, once: Once | None = None) -> tuple[ServiceResponse, bool]:
        """Add a service; return what is answered, and whether it is new (a request may be done `once`).

        Raises `ApiError`: 409 if the name is taken, 422 if a constraint of the table refuses the row.
        """
        row = wish.row()
        service_id, name = row["id"], row["name"]
        event = user_event(service_id, "create", f"{name} was created from {wish.request.recipe_name}.")
        try:
            async with writing(self._database) as connection:
                if once is not None and (before := await connection.run_sync(answered, once, time.time())) is not None:
                    return before, False
                await connection.execute(_ADD, row)
                created_at = (await connection.execute(_ADD_FIRST_EVENT, {**event, "created": service_id})).scalar_one()
                answer = wish.answer(row, created_at)
                if once is not None:
                    await remember(connection, once, answer, time.time())
        except IntegrityError as error:
            # The same request, sent twice at once: the other one was quicker.
            if once is not None and (before := await self.answered(once)) is not None:
                return before, False
            raise refused(error, name) from None
        return answer, True

    async def delete(self, service_id: str, name: str) -> bool:
        """Mark a service as deleted; False if it was already."""
        async with writing(self._database) as connection:
            marked = await connection.execute(_DELETE, {"key": service_id, "now": time.time()})
            if marked.rowcount == 0:
                return False
            await connection.execute(ADD_EVENT, user_event(service_id, "delete", f"{name} was deleted."))
            return True

    async def leader(self) -> Row[int, str | None, str | None, float] | None:
        """Return the epoch and the host of the controller that leads or led last, and when it renewed its lease."""
        return await reading(self._database, lambda connection: connection.execute(_LEADER).one_or_none())

    async def _all(self, statement: Select[Any], principal: Principal) -> Sequence[Row[Any]]:
        seen = self.sight.keys(principal)
        return await reading(self._database, lambda connection: connection.execute(statement, seen).all())

    async def _found(
        self, key: str, principal: Principal, statements: tuple[Select[Any], Select[Any]]
    ) -> Sequence[Row[Any]]:
        seen = self.sight.keys(principal)
        return await reading(self._database, lambda connection: found(connection, key, seen, statements))


def found(
    connection: Connection,
    key: str,
    seen: Mapping[str, Any],
    statements: tuple[Select[Any], Select[Any]] | None = None,
) -> Sequence[Row[Any]]:
    """Return the rows of a service, found by id or name; of what a service is, unless the statements say otherwise.

    `seen` says for whom (`Sight`).
    """
    if not 0 < len(key) <= LONGEST_KEY or "\0" in key:
        return ()
    for statement in statements or _FIND:
        rows: Sequence[Row[Any]] = connection.execute(statement, {"key": key, **seen}).all()
        if rows:
            return rows
    return ()


def user_event(service_id: str, action: str, message: str) -> dict[str, Any]:
    """Return a line of what users did, as its table holds it."""
    return {"service_id": service_id, "action": action, "message": message, "at": time.time()}


def refused(error: IntegrityError, name: str) -> ApiError:
    """Say why the database refuses a service."""
    text = cause(error)
    if "services.name" in text or "uq_services_living_name" in text:
        return ApiError(409, f"The name {name} is taken by another service. Choose another, or stop that one first.")
    return ApiError(422, f"The database refuses this service: {text}.")
