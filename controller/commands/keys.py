"""The installation's keys: which there are, who needs them, a new one in front, and old ones dropped.

A key is needed while there may be a job whose door was made under it, or whose engine knows a secret of it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import and_, select

from api.contract.certificates import Authority
from api.contract.identity import change_keys, new_key, read_keys
from api.contract.recipes.errors import ConfigError
from api.contract.recipes.spec import decode_spec
from api.contract.settings import Settings
from api.contract.tables import AttemptRow, Service, ServiceStatus
from controller.commands.adopt import find
from controller.commands.opening import opened
from controller.installation import Installation

_ATTEMPTS = (
    select(Service.id, Service.name, AttemptRow.door, ServiceStatus.spec)
    .join(Service, Service.id == AttemptRow.service_id)
    .outerjoin(
        ServiceStatus,
        and_(ServiceStatus.service_id == AttemptRow.service_id, ServiceStatus.digest == AttemptRow.digest),
    )
    .where(AttemptRow.gone_at.is_(None))
    .order_by(Service.name)
)


@dataclass(frozen=True, slots=True, kw_only=True)
class UsedKey:
    """One key of the file."""

    id: str
    is_newest: bool
    services: Mapping[str, str]
    """Those whose jobs need it: id -> name."""


async def list_keys(settings: Settings) -> tuple[UsedKey, ...]:
    """Return the keys, the newest first. Raises `KeyFileError`, `SchemaError`, `OpeningError`."""
    ids = [Authority(key).id for key in read_keys(settings.key_file)]
    async with opened(settings) as installation:
        needed = await _needed(installation, oldest=ids[-1])
    return tuple(UsedKey(id=one, is_newest=one == ids[0], services=needed.get(one, {})) for one in ids)


def rotate(settings: Settings) -> str:
    """Put a new key before those that there are; return its id. Raises `KeyFileError`."""
    return Authority(change_keys(settings.key_file, lambda keys: (new_key(), *keys))[0]).id


async def prune(settings: Settings) -> tuple[str, ...]:
    """Drop the old keys that nobody needs; return their ids.

    The cluster is asked for jobs that the database does not know. Raises `KeyFileError`, `SchemaError`, `OpeningError`.
    """
    oldest = Authority(read_keys(settings.key_file)[-1]).id
    async with opened(settings) as installation:
        needed = {*await _needed(installation, oldest=oldest)}
        needed.update(stray.door or oldest for stray in await find(installation))
    dropped: list[str] = []

    def kept(keys: tuple[bytes, ...]) -> list[bytes]:
        ids = {key: Authority(key).id for key in keys}
        dropped.extend(ids[key] for key in keys[1:] if ids[key] not in needed)
        return [key for key in keys if ids[key] not in dropped]

    change_keys(settings.key_file, kept)
    return tuple(dropped)


async def _needed(installation: Installation, *, oldest: str) -> Mapping[str, Mapping[str, str]]:
    """Return the services whose jobs need a key, by the key's id."""
    needed: dict[str, dict[str, str]] = defaultdict(dict)
    rows = await installation.database.read(lambda connection: connection.execute(_ATTEMPTS).all())
    for row in rows:
        if row.door is not None:
            needed[row.door][row.id] = row.name
        elif _may_know_a_secret(row.spec):
            needed[oldest][row.id] = row.name
    return needed


def _may_know_a_secret(spec: str | None) -> bool:
    """Whether the engine of an attempt without a door was given a secret, or nobody knows what it was given."""
    try:
        return spec is None or decode_spec(spec).secret_variable is not None
    except ConfigError:
        return True
