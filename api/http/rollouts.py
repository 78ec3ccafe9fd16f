"""How a change of a service reaches what runs: how far it is, and the generations that can be gone back to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from msgspec import Struct
from sqlalchemy import BindParameter, Connection, Row, bindparam, select

from api.contract.database import Database
from api.contract.endings import what_follows
from api.contract.recipes.spec import decode_spec
from api.contract.status import Progress, Truth, explanation, find
from api.contract.tables import AttemptRow, Service, ServiceGeneration, ServiceStatus
from api.http.history import attempt_state
from api.http.wire import conditions_of, is_wanted, iso
from api.web.bodies import read_object
from api.web.errors import ApiError, InvalidError, Problem
from api.web.transactions import reading

STATES = ("complete", "progressing", "paused", "failed", "stopped")

_KEY: BindParameter[str] = bindparam("key")
_SERVICE = (
    select(
        Service.id,
        Service.name,
        Service.generation,
        Service.rollout_paused,
        Service.desired_state,
        Service.deletion_requested_at,
        ServiceStatus.observed_generation,
        ServiceStatus.target,
        ServiceStatus.wanted_replicas,
        ServiceStatus.conditions,
        ServiceStatus.spec,
        ServiceStatus.digest,
    )
    .select_from(Service)
    .outerjoin(ServiceStatus, ServiceStatus.service_id == Service.id)
    .where(Service.id == _KEY)
)
_OPEN = (
    select(AttemptRow.__table__)
    .where(AttemptRow.service_id == _KEY, AttemptRow.closed_at.is_(None))
    .order_by(AttemptRow.replica, AttemptRow.incarnation)
)
_KEPT = (
    select(ServiceGeneration.__table__)
    .where(ServiceGeneration.service_id == _KEY)
    .order_by(ServiceGeneration.generation)
)


class StandingAttempt(Struct, frozen=True, kw_only=True):
    """An attempt that stands for a replica, and what happens when its job ends."""

    token: str
    replica: int
    attempt: int
    lane: str
    beside: str | None
    """Why it was opened beside another attempt of its replica; `None`: it was not."""
    generation: int
    is_updated: bool
    """Whether it was launched as is wanted now."""
    state: str
    job_id: int | None
    node: str | None
    draining_since: str | None
    ends_at: str | None
    then: str
    """What happens at its job's end, for people; empty where that is not known."""


class RolloutResponse(Struct, frozen=True, kw_only=True):
    """How far the change of a service is that was made last."""

    service_id: str
    name: str
    generation: int
    observed_generation: int
    paused: bool
    state: str
    """One of `STATES`."""
    message: str
    replicas: int
    """How many there are to be, as far as the controller has looked."""
    ready_replicas: int
    updated_replicas: int
    """How many of them answer as is wanted now."""
    attempts: Sequence[StandingAttempt]


class GenerationResponse(Struct, frozen=True, kw_only=True):
    """What a generation asked to be launched."""

    generation: int
    at: str
    recipe_name: str
    config: dict[str, Any]
    changed: Sequence[str]
    """Which keys differ from the one before, of those that are kept."""
    is_wanted: bool
    """Whether it is what is wanted now."""


class Rollouts:
    """Reads rollouts, and what can be gone back to."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def read(self, service_id: str) -> RolloutResponse | None:
        """Return how far a service's rollout is; `None` if there is no such service any more."""
        found = await reading(self._database, lambda connection: _read(connection, service_id))
        return None if found is None else _response(*found)

    async def is_paused(self, service_id: str) -> bool:
        """Whether a service's changes are held back."""
        query = select(Service.rollout_paused).where(Service.id == service_id)
        return bool(await reading(self._database, lambda connection: connection.scalar(query)))

    async def kept(self, service_id: str) -> Sequence[Row[Any]]:
        """Return the generations that are kept, the newest last."""
        return await reading(self._database, lambda connection: connection.execute(_KEPT, {"key": service_id}).all())


@dataclass(frozen=True, slots=True)
class Undo:
    """What is to be gone back to."""

    generation: int | None
    """`None`: the one before."""


def read_undo(body: bytes) -> Undo:
    """Read the body of POST …/rollout/undo, which may be empty; raises `InvalidError`."""
    fields = read_object(body) if body.strip() else {}
    problems = [
        Problem(loc=("body", name), msg="There is only to_generation", type="extra_forbidden", input=fields[name])
        for name in fields.keys() - {"to_generation"}
    ]
    wanted = fields.get("to_generation")
    if wanted is not None and (type(wanted) is not int or not 1 <= wanted < 2**31):
        msg = "to_generation must be a generation, a whole number from 1 on, or null: the one before"
        problems.append(Problem(loc=("body", "to_generation"), msg=msg, type="value_error", input=wanted))
    if problems:
        raise InvalidError(*problems)
    return Undo(wanted)


def chosen(kept: Sequence[Row[Any]], row: Row[Any], undo: Undo) -> Row[Any]:
    """Return the generation that a service goes back to. Raises `ApiError`: 404 if it is not kept, 409 if none is.

    Between two that are kept nothing that is launched has changed, so that any number leads to one.
    """
    if undo.generation is not None:
        wanted = [one for one in kept if one.generation <= undo.generation <= row.generation]
        if not wanted:
            raise ApiError(
                404, f"Generation {undo.generation} is not kept. GET …/rollout/history lists those that are."
            )
        return wanted[-1]
    others = [one for one in kept if launched(one.recipe_name, one.config) != launched(row.recipe_name, row.config)]
    if not others:
        raise ApiError(409, "There is nothing to go back to: no generation is kept that asked for another launch.")
    return others[-1]


def launched(recipe_name: str, config: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return what of a service is a launch: how many of it there are is not."""
    return recipe_name, {key: value for key, value in config.items() if key != "replicas"}


def gone_back(row: Row[Any], kept: Row[Any]) -> dict[str, Any]:
    """Return the columns of a service that change when it goes back; it keeps as many replicas as it has."""
    if launched(row.recipe_name, row.config) == launched(kept.recipe_name, kept.config):
        return {}
    config = launched(kept.recipe_name, kept.config)[1]
    if "replicas" in row.config:
        config["replicas"] = row.config["replicas"]
    values = {"recipe_name": kept.recipe_name, "config": config}
    return {name: value for name, value in values.items() if value != getattr(row, name)}


def generation_responses(kept: Sequence[Row[Any]]) -> list[GenerationResponse]:
    """Show the generations that are kept, the newest last."""
    return [
        GenerationResponse(
            generation=one.generation,
            at=iso(one.at),
            recipe_name=one.recipe_name,
            config=one.config,
            changed=_changed(kept[place - 1], one) if place else (),
            is_wanted=place == len(kept) - 1,
        )
        for place, one in enumerate(kept)
    ]


def _changed(before: Row[Any], after: Row[Any]) -> list[str]:
    keys = before.config.keys() | after.config.keys()
    changed = sorted(key for key in keys if before.config.get(key) != after.config.get(key))
    return [*(["recipe_name"] if before.recipe_name != after.recipe_name else []), *changed]


def _read(connection: Connection, service_id: str) -> tuple[Row[Any], Sequence[Row[Any]]] | None:
    service = connection.execute(_SERVICE, {"key": service_id}).one_or_none()
    if service is None:
        return None
    return service, connection.execute(_OPEN, {"key": service_id}).all()


def _response(row: Row[Any], attempts: Sequence[Row[Any]]) -> RolloutResponse:
    replicas = row.target if row.target is not None else row.wanted_replicas or 0
    ready = [a for a in attempts if attempt_state(a) == "ready" and a.replica < replicas]
    updated = {a.replica for a in ready if a.digest == row.digest and a.draining_since is None}
    is_mixed = any(a.digest != row.digest for a in attempts)
    state, message = _told(row, replicas, len(updated), is_mixed=is_mixed)
    return RolloutResponse(
        service_id=row.id,
        name=row.name,
        generation=row.generation,
        observed_generation=row.observed_generation or 0,
        paused=bool(row.rollout_paused),
        state=state,
        message=message,
        replicas=replicas,
        ready_replicas=len({a.replica for a in ready}),
        updated_replicas=len(updated),
        attempts=[_standing(row, attempt) for attempt in attempts],
    )


def _told(row: Row[Any], replicas: int, updated: int, *, is_mixed: bool) -> tuple[str, str]:
    """Return the state of a rollout, and what there is to say of it."""
    conditions = conditions_of(row)
    accepted, progressing = find(conditions, "Accepted"), find(conditions, "Progressing")
    reason = progressing.reason if progressing is not None else ""
    many = f"{updated} of {replicas} replicas answer as generation {row.generation} says."
    if not is_wanted(row):
        return "stopped", "The service is stopped: nothing is rolled out."
    if (row.observed_generation or 0) < row.generation:
        return "progressing", f"The controller has not looked at generation {row.generation} yet."
    if reason in (Progress.FAILED, Progress.ROLLOUT_FAILED) or (
        accepted is not None and accepted.status is Truth.FALSE
    ):
        return "failed", f"{many} {explanation(conditions)}".rstrip()
    if reason == Progress.COMPLETED:
        return "complete", "It completed."
    if updated >= replicas and not is_mixed:
        return "complete", f"It is rolled out: {many}"
    if row.rollout_paused:
        return "paused", f"It is paused: {many} POST …/rollout/resume has it go on."
    return "progressing", f"{many} {explanation(conditions)}".rstrip()


def _standing(row: Row[Any], attempt: Row[Any]) -> StandingAttempt:
    then = what_follows(
        decode_spec(row.spec) if row.spec is not None else None,
        wanted=is_wanted(row),
        ends=attempt.ends_at is not None,
        draining=attempt.draining_since is not None,
    )
    return StandingAttempt(
        token=attempt.token,
        replica=attempt.replica,
        attempt=attempt.incarnation,
        lane=attempt.lane,
        beside=attempt.beside,
        generation=attempt.generation,
        is_updated=attempt.digest == row.digest,
        state=attempt_state(attempt),
        job_id=attempt.job_id,
        node=attempt.node,
        draining_since=None if attempt.draining_since is None else iso(attempt.draining_since),
        ends_at=None if attempt.ends_at is None else iso(attempt.ends_at),
        then=then,
    )
