"""Who uses the images: services that are not deleted, and attempts that are not gone."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, exists, or_, select

from api.contract.database import Database
from api.contract.job import typed
from api.contract.job.folder import PARAMETERS, STATE, job_folder, read_object
from api.contract.job.parameters import Image
from api.contract.tables import AttemptRow, Service, ServiceStatus
from controller.store import service_row
from controller.wanted import Wanted
from controller.wrapper import cache

_living = AttemptRow.gone_at.is_(None)
_SERVICES = (
    select(Service.__table__, ServiceStatus.observed_generation, ServiceStatus.spec)
    .outerjoin(ServiceStatus, ServiceStatus.service_id == Service.id)
    .where(or_(Service.deletion_requested_at.is_(None), exists().where(AttemptRow.service_id == Service.id, _living)))
    .order_by(Service.name)
)
_ATTEMPTS = select(AttemptRow.token, AttemptRow.service_id, AttemptRow.digest).where(_living).order_by(AttemptRow.token)


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Keys of images, and who uses them."""

    services: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """The names of the services that want it, stopped ones too."""
    jobs: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """The tokens of the attempts that are not gone."""
    unknown: tuple[str, ...] = ()
    """The tokens of those of which nothing says yet what they use."""

    @property
    def keys(self) -> frozenset[str]:
        """All that are used, as far as that is known."""
        return frozenset(self.services) | frozenset(self.jobs)


async def usage(database: Database, wanted: Wanted, jobs: Path) -> Usage:
    """Read it from the database, and from the job folders below `jobs`. Raises what the database raises."""
    services, attempts = await database.read(_read)
    return await asyncio.to_thread(_usage, services, attempts, wanted, jobs)


def _read(connection: Connection) -> tuple[Any, Any]:
    return connection.execute(_SERVICES).all(), connection.execute(_ATTEMPTS).all()


def _usage(services: Iterable[Any], attempts: Iterable[Any], wanted: Wanted, jobs: Path) -> Usage:
    by_service: dict[str, list[str]] = defaultdict(list)
    by_job: dict[str, list[str]] = defaultdict(list)
    now: dict[tuple[str, str], str | None] = {}
    unknown = []
    for row in services:
        desired = wanted.of(service_row(row))
        if desired.spec is None:
            continue
        key = now[row.id, desired.digest] = key_of(desired.spec.image)
        if key is not None and row.deletion_requested_at is None:
            by_service[key].append(row.name)
    for row in attempts:
        mine = (row.service_id, row.digest)
        told = now[mine] if mine in now else _told(job_folder(jobs, row.service_id, row.token))
        if told == "":
            unknown.append(row.token)
        elif told is not None:
            by_job[told].append(row.token)
    return Usage(services=_frozen(by_service), jobs=_frozen(by_job), unknown=tuple(unknown))


def key_of(image: Image | None) -> str | None:
    """Return the key of an image; `None`: it is not of the cache."""
    return cache.key(image) if image is not None and cache.is_cached(image) else None


def _told(folder: Path) -> str | None:
    """Return the image of a job of an older generation: of its parameters until it begins, then of its state.

    `None`: none of the cache. Empty: they do not say (yet).
    """
    parameters, state = read_object(folder / PARAMETERS), read_object(folder / STATE)
    if "image" in state:
        return str(state["image"]) or None
    if "image" not in parameters:
        return ""
    try:
        return key_of(None if parameters["image"] is None else typed.read(Image, parameters["image"]))
    except ValueError:
        return ""


def _frozen(found: Mapping[str, list[str]]) -> dict[str, tuple[str, ...]]:
    return {key: tuple(names) for key, names in found.items()}
