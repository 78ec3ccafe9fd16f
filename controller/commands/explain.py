"""Explain one service: what is wanted, what is seen, and what would be done now and why. Writes nothing, does nothing.

It reads the cluster, the files and the engines itself, so that it is as good while the controller is down.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import select

from api.contract.database import Database
from api.contract.doors import Doors
from api.contract.exits import Exit, ExitError
from api.contract.job.folder import CLAIM, EXIT, LOGS, STATE
from api.contract.settings import Settings
from api.contract.tables import Service
from controller.clock import SystemClock
from controller.cluster.probes import HttpProbes
from controller.commands.opening import opened
from controller.core import hand_over
from controller.core.attempt import Attempt, Probe, ProbeSpec
from controller.core.codec import of_one_service, without_private
from controller.core.compare import changes
from controller.core.decide import decide
from controller.core.desired import Desired
from controller.core.observed import Observed
from controller.core.plan import Plan
from controller.core.situation import Situation
from controller.installation import Installation
from controller.lease import Leader, leader
from controller.observe import observe, probe_spec
from controller.ports import Record, UnreadableError
from controller.site import limits

FILES = (CLAIM, STATE, EXIT, *LOGS)


class UnknownServiceError(ExitError):
    """There is no service of that id or name."""

    code = Exit.NOT_FOUND


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """All that is known of a service at one time."""

    now: float
    desired: Desired
    seen: Observed
    files: Mapping[str, Mapping[str, float]]
    """By token: the files of its job, and when each was last written."""
    leader: Leader | None
    leads: bool
    """Whether it has been heard of lately."""
    plan: Plan
    becomes: Mapping[str, tuple[str, ...]]
    """By token: what would change in the record of an attempt."""
    successors_due: Mapping[str, float]
    """By token: when the successor of an attempt is to be opened, as far as that is known."""


async def explain(settings: Settings, name: str) -> Explanation:
    """Look at a service, and decide what would be done.

    Raises `UnknownServiceError`, `SchemaError`, `OpeningError`.
    """
    async with opened(settings) as installation:
        return await _explained(installation, name)


async def _explained(installation: Installation, name: str) -> Explanation:
    clock, settings, database = SystemClock(), installation.settings, installation.database
    record = await installation.store.load(await _find(database, name))
    if record is None:
        raise UnknownServiceError(name)
    run_dirs, probes = installation.run_dirs, _Probed()
    cluster = await installation.cluster(clock, probes, wake=lambda _: None)
    with contextlib.suppress(UnreadableError):  # it is noted, and part of what is seen
        await cluster.snapshots.take()
    probes.found = await _ask_engines(installation, record, clock)
    seen = await observe(record, cluster)
    now = clock.now()
    bounds = limits(settings)
    plan = decide(record.desired, seen, now, bounds)
    found = await leader(database)
    known = {a.token: a for a in record.attempts}
    return Explanation(
        now=now,
        desired=without_private(record.desired),
        seen=of_one_service(seen),
        files={token: _written(run_dirs.folder(record.desired.service_id, token)) for token in seen.files},
        leader=found,
        leads=found is not None and found.holder is not None and now - found.renewed_at < settings.controller.lease,
        plan=plan,
        becomes={a.token: changes(known.get(a.token), a) for a in plan.attempts},
        successors_due=_successors_due(
            Situation(record.desired, seen.attempts, seen, now, bounds, record.desired.replicas)
        ),
    )


def _successors_due(situation: Situation) -> dict[str, float]:
    """Return by token when the successors of those attempts are due that stand for their replicas alone."""
    alone = [hand_over.standing(situation.replica(number), situation) for number in range(situation.target)]
    due = {a.token: hand_over.successor_due_at(a, situation) for a in alone if a is not None}
    return {token: at for token, at in due.items() if at is not None}


async def _find(database: Database, name: str) -> str:
    """Return the id of the service of that id, or else of the living one of that name."""
    by_id = select(Service.id).where(Service.id == name)
    by_name = select(Service.id).where(Service.name == name, Service.deletion_requested_at.is_(None))
    for query in (by_id, by_name):
        found = await database.read(lambda connection, query=query: connection.scalar(query))  # type: ignore[misc]
        if found is not None:
            return str(found)
    raise UnknownServiceError(f"There is no service {name}. See: ai-factory services list")


async def _ask_engines(installation: Installation, record: Record, clock: SystemClock) -> dict[str, Probe]:
    """Probe every engine once that the controller would probe, if the installation's key is known here."""
    serving = [a for a in record.attempts if a.gone_at is None and a.serving_at is not None]
    run_dirs, keyring = installation.run_dirs, installation.keyring()
    if keyring.newest() is None:
        return {}
    probes = HttpProbes(clock, Doors(keyring, "controller"), lambda _: None, run_dirs)
    try:
        specs = {a.token: await probe_spec(record, a, run_dirs) for a in serving}
        found = {a.token: await probes.once(a, spec) for a in serving if (spec := specs[a.token]) is not None}
    finally:
        await probes.close()
    return {token: probe for token, probe in found.items() if probe is not None}


def _written(folder: Path) -> dict[str, float]:
    """Return when each of a job's files was last written."""
    found: dict[str, float] = {}
    for name in FILES:
        with contextlib.suppress(OSError):
            found[name] = (folder / name).stat().st_mtime
    return found


class _Probed:
    """Probes that were made once."""

    def __init__(self) -> None:
        self.found: Mapping[str, Probe] = {}

    def watch(self, attempt: Attempt, spec: ProbeSpec) -> None:
        """Do nothing."""

    def forget(self, token: str) -> None:
        """Do nothing."""

    def latest(self, token: str) -> Probe | None:
        """Return what was found."""
        return self.found.get(token)
