"""Services whose jobs have no door yet, though they would get one if they were launched now."""

from __future__ import annotations

from dataclasses import replace

from sqlalchemy import select

from api.contract.settings import Settings
from api.contract.tables import AttemptRow, Service, ServiceStatus
from controller.commands.opening import opened
from controller.store import service_row

_WITHOUT = (
    select(Service.__table__, ServiceStatus.observed_generation, ServiceStatus.spec)
    .outerjoin(ServiceStatus, ServiceStatus.service_id == Service.id)
    .where(
        Service.id.in_(select(AttemptRow.service_id).where(AttemptRow.closed_at.is_(None), AttemptRow.door.is_(None)))
    )
    .order_by(Service.name)
)


async def without_door(settings: Settings) -> tuple[str, ...]:
    """Return their names. Raises `SchemaError`, `OpeningError`."""
    async with opened(settings) as installation:
        rows = await installation.database.read(lambda connection: connection.execute(_WITHOUT).all())
        launched_now = {row.name: installation.wanted.of(replace(service_row(row), stored_spec=None)) for row in rows}
    return tuple(
        name for name, desired in launched_now.items() if desired.running and desired.spec and desired.spec.has_door
    )
