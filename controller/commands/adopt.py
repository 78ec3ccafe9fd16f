"""Jobs that the cluster runs and the database has never heard of: after a restore, they are shown here, and taken over.

The controller leaves such jobs alone. It opens no replica beside them, either: whoever restores a database decides.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import insert, update

from api.contract.database import Database
from api.contract.exits import ExitError
from api.contract.gpus import gpus_asked
from api.contract.job.folder import CLAIM, PARAMETERS, STATE, read_object
from api.contract.job.token import Token, parse_token
from api.contract.job.words import Lane
from api.contract.settings import Settings
from api.contract.tables import AttemptRow
from controller.commands.foreign import cancel_foreign, find_foreign
from controller.commands.opening import opened
from controller.core.attempt import Attempt
from controller.core.desired import Desired
from controller.core.jobs import Job, JobPhase
from controller.core.outcomes import Outcome
from controller.installation import Installation
from controller.lease import is_dead, leader

ENDING = (JobPhase.COMPLETING, JobPhase.ENDED)


class LeaderError(ExitError):
    """A controller is at work: it would not see what is written behind its back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stray:
    """One such job."""

    token: str
    job_id: int
    state: str
    node: str | None
    service: str | None
    """The service's name; `None`: the database has no such service."""
    digest: str | None
    """What identifies the launch spec that it was started with, as its files say."""
    lane: Lane
    door: str | None
    """Under which key its door is made; `None`: it has none."""
    desired: Desired | None

    @property
    def parts(self) -> Token:
        """Its token, read."""
        token = parse_token(self.token)
        assert token is not None
        return token

    @property
    def is_as_wanted(self) -> bool | None:
        """Whether it runs what is wanted now; `None`: nothing says what it runs."""
        return None if self.desired is None or self.digest is None else self.digest == self.desired.digest


@dataclass(frozen=True, slots=True, kw_only=True)
class Adoption:
    """What was found, and what was done about it."""

    strays: tuple[Stray, ...]
    taken: tuple[Stray, ...]
    """Those that their services own from now on."""
    foreign: tuple[Job, ...]
    """Jobs of other installations."""


async def adopt(settings: Settings, *, take_over: bool) -> Adoption:
    """Find such jobs, and those of other installations; `take_over`: write an attempt for each whose service is known.

    Raises `SchemaError`, `OpeningError`, `LeaderError`.
    """
    async with opened(settings) as installation:
        foreign = await find_foreign(installation)
        strays = await find(installation)
        taken = await take(installation.database, strays, time.time()) if take_over else ()
    return Adoption(strays=strays, taken=taken, foreign=foreign)


async def cancel(settings: Settings, other: str) -> tuple[Job, ...]:
    """Cancel the jobs of another installation; return them.

    Raises `SchemaError`, `OpeningError`, `ForeignError`.
    """
    async with opened(settings) as installation:
        return await cancel_foreign(installation, other)


async def find(installation: Installation) -> tuple[Stray, ...]:
    """Ask the cluster for such jobs, oldest first. Raises `UnreadableError`, and what the database raises."""
    store, run_dirs = installation.store, installation.run_dirs
    alive = [job for job in (await installation.scheduler.list_jobs()).jobs if job.phase not in ENDING]
    known = await store.known({job.token for job in alive})
    found: dict[str, Stray] = {}
    for job in sorted(alive, key=lambda job: job.job_id):
        token = parse_token(job.token)
        if token is None or job.token in known:
            continue
        folder = run_dirs.folder(token.service, job.token)
        if job.token in found and _job_of(folder) != job.job_id:
            continue  # the first one counts, unless another has the claim
        record = await store.load(token.service)
        found[job.token] = _stray(job, folder, record.desired if record is not None else None)
    return tuple(found.values())


async def take(database: Database, strays: tuple[Stray, ...], now: float) -> tuple[Stray, ...]:
    """Write an attempt for each whose service is known; return those. Raises `LeaderError`.

    An attempt was only ever opened when the one before it was closed: so the newest of a lane closes all others there.
    """
    held = await leader(database)
    if held is not None and held.holder is not None and not is_dead(held.holder):
        raise LeaderError(f"A controller leads on {held.host}. Stop it first, and start it again afterwards.")
    taken = [stray for stray in strays if stray.desired is not None]
    async with database.write() as connection:
        for stray in sorted(taken, key=lambda stray: stray.parts.incarnation):
            parts = stray.parts
            of_replica = (AttemptRow.service_id == parts.service, AttemptRow.replica == parts.replica)
            mine = (*of_replica, AttemptRow.lane == stray.lane)
            older = update(AttemptRow).where(*mine, AttemptRow.closed_at.is_(None))
            message = f"The cluster ran {stray.token} for it, which was adopted."
            await connection.execute(older.values(closed_at=now, outcome=Outcome.SUPERSEDED, message=message))
            await connection.execute(insert(AttemptRow).values(**_values(stray, now)))
    return tuple(taken)


def _stray(job: Job, folder: Path, desired: Desired | None) -> Stray:
    return Stray(
        token=job.token,
        job_id=job.job_id,
        state=job.state,
        node=job.node,
        service=desired.name if desired is not None else None,
        digest=_told(folder, "digest"),
        lane=_lane(folder),
        door=_door(folder),
        desired=desired,
    )


def _values(stray: Stray, now: float) -> dict[str, Any]:
    """Return the row of an attempt of which the job is known, and nothing else: the controller sees the rest."""
    desired = stray.desired
    assert desired is not None
    attempt = Attempt(
        token=stray.token,
        service_id=stray.parts.service,
        replica=stray.parts.replica,
        incarnation=stray.parts.incarnation,
        generation=desired.generation,
        lane=stray.lane,
        door=stray.door,
        digest=stray.digest or desired.digest,
        gpus=gpus_asked(desired.spec.resources) if desired.spec is not None else 0,
        intent_at=now,
        submitted_at=now,
        job_id=stray.job_id,
    )
    return asdict(attempt)


def _lane(folder: Path) -> Lane:
    return Lane.B if _told(folder, "lane") == Lane.B else Lane.MAIN


def _door(folder: Path) -> str | None:
    given = read_object(folder / PARAMETERS).get("door")
    asked = given.get("id") if isinstance(given, dict) else None
    return _told(folder, "door") or (asked if isinstance(asked, str) else None)


def _told(folder: Path, what: str) -> str | None:
    """Read it from what the job has written, or, if it has not begun, from what it will read."""
    for name in (STATE, PARAMETERS):
        told = read_object(folder / name).get(what)
        if isinstance(told, str):
            return told
    return None


def _job_of(folder: Path) -> int | None:
    job_id = read_object(folder / CLAIM).get("job_id")
    return job_id if isinstance(job_id, int) else None


def listed(stray: Stray, taken: bool) -> dict[str, Any]:
    """Return it for scripts."""
    return {
        "token": stray.token,
        "job_id": stray.job_id,
        "state": stray.state,
        "node": stray.node,
        "service": stray.service,
        "as_wanted": stray.is_as_wanted,
        "taken": taken,
    }


def told(stray: Stray, taken: bool) -> str:
    """Return it as a line for people."""
    job = f"job {stray.job_id}, {stray.state}{f' on {stray.node}' if stray.node else ''}, {stray.token}"
    if stray.service is None:
        return (
            f"{job}: its service {stray.parts.service} is unknown here. To end it: scancel {stray.job_id}. "
            "To keep it: declare the service again under this id (docs/operation.md)"
        )
    of = f"replica {stray.parts.replica} of {stray.service}"
    if taken:
        return f"{job}: is {of} from now on"
    launch = {True: "as wanted now", False: "otherwise than wanted now", None: "nobody knows how"}[stray.is_as_wanted]
    return f"{job}: {of}, launched {launch}. To take it over: ai-factory adopt --take"
