"""What there is to say of a change that has not reached all replicas."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from controller.core import changes, evidence
from controller.core.drive import Standing
from controller.core.marks import Mark
from controller.core.openings import Waits
from controller.core.situation import Situation
from controller.core.stages import stage_of

_NO_ROOM_BESIDE = (
    "What it replaces serves on. Where the cluster has no room for both, set update.surge to 0: then that ends first."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RollingOut:
    """A change that has not reached all replicas."""

    has_failed: bool
    """Whether what it changes to was tried in vain beside what serves, which goes on."""
    message: str
    room: str = ""
    """What a ceiling makes of it."""


def rolling_out(situation: Situation, standings: Sequence[Standing]) -> RollingOut | None:
    """Return how a change stands of which something serves that was launched before; `None` if there is none."""
    digest = situation.desired.digest
    before = [s for s in standings if any(a.open and a.digest != digest for a in s.replica.attempts)]
    if not before:
        return None
    failed = next((s for s in before if _is_in_vain(s, situation)), None)
    if failed is not None:
        return RollingOut(has_failed=True, message=_failure(failed, situation.desired.name))
    new = sum(any(a.serves and a.digest == digest for a in s.replica.attempts) for s in standings)
    room = _room(situation)
    said = [f"{new} of {situation.target} replicas run what is wanted now.", _next(before, situation), room]
    return RollingOut(has_failed=False, message=" ".join(text for text in said if text), room=room)


def _is_in_vain(standing: Standing, situation: Situation) -> bool:
    return standing.replica.is_ready and Mark.FAILED in situation.marks(standing.replica.number)


def _failure(standing: Standing, name: str) -> str:
    """Say what keeps a replica from what is wanted now, and what to do."""
    newest, held = standing.replica.newest, standing.hold
    assert newest is not None
    if held is not None and held.waits is Waits.GIVEN_UP:
        what = held.message
    elif newest.open:
        what = f"It failed {newest.faults} times, and is tried again."
    else:
        what = f"{newest.outcome}: {newest.message.rstrip('.')}. It is tried again."
    return (
        f"Replica {standing.replica.number} does not come to run what is wanted now. {what.rstrip('.')}. "
        "What ran before serves on, and no further replica is changed. Change the service, or go back: "
        f"ai-factory services rollout undo {name}."
    )


def _next(before: Sequence[Standing], situation: Situation) -> str:
    """Say how far the replica is that is being changed."""
    for standing in before:
        number, newest = standing.replica.number, standing.replica.newest
        if newest is not None and newest.open and not newest.serves and newest.digest == situation.desired.digest:
            queued = evidence.pending(newest, situation.seen) is not None and len(standing.replica.open) > 1
            message = stage_of(standing, situation).message
            return f"Replica {number}: {message} {_NO_ROOM_BESIDE}" if queued else f"Replica {number}: {message}"
        if standing.hold is not None and standing.hold.message:
            return f"Replica {number}: {standing.hold.message}"
    return ""


def _room(situation: Situation) -> str:
    """Say what a ceiling makes of the change."""
    spec, found = situation.desired.spec, changes.no_room(situation)
    if spec is None or found is None:
        return ""
    if spec.max_unavailable:
        return f"{found} So a replica ends before its replacement starts."
    return f"{found} So nothing is changed until there is room (update.max_unavailable is 0)."
