"""How many GPU-hours the services have used, from the records of their attempts."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import case, func, select

from api.contract.database import Database
from api.contract.tables import AttemptRow


async def gpu_hours(database: Database, since: float, until: float) -> Mapping[str, float]:
    """Return, by service, the GPU-hours used between two times (Unix seconds).

    A GPU is used from the start of its job until nothing of it is left on the cluster.
    """
    began = case((AttemptRow.started_at > since, AttemptRow.started_at), else_=since)
    ended = case((AttemptRow.gone_at < until, AttemptRow.gone_at), else_=until)
    query = (
        select(AttemptRow.service_id, func.sum(AttemptRow.gpus * (ended - began) / 3600.0).label("hours"))
        .where(AttemptRow.gpus > 0, AttemptRow.started_at < until)
        .where((AttemptRow.gone_at > since) | AttemptRow.gone_at.is_(None))
        .group_by(AttemptRow.service_id)
    )
    rows = await database.read(lambda connection: connection.execute(query).all())
    return {row.service_id: row.hours for row in rows}
