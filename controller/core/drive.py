"""Drive the replicas of a service to what is wanted: close what is not, open what is missing."""

from __future__ import annotations

from dataclasses import dataclass

from api.contract.job.token import Token
from controller.core.attempt import Attempt
from controller.core.closings import closing
from controller.core.draining import drained_from, has_drained
from controller.core.fold import close
from controller.core.hand_over import prefer
from controller.core.openings import Hold, Opening, Waits, before, hold, opening
from controller.core.plan import Submit
from controller.core.situation import Replica, Situation


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How a wanted replica stands after driving."""

    replica: Replica
    hold: Hold | None = None
    """What keeps it from being opened."""

    @property
    def given_up(self) -> str | None:
        """`Completed`, or why it is not tried again in this generation."""
        is_held = self.hold is not None and self.hold.waits is Waits.GIVEN_UP and not self.replica.is_open
        return self.hold.message if self.hold is not None and is_held else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Driven:
    """The attempts after driving, what to submit, and how the wanted replicas stand."""

    attempts: tuple[Attempt, ...]
    submits: tuple[Submit, ...]
    standings: tuple[Standing, ...]
    wants_gpus: int = 0
    """GPUs that the next replica waits for others to give back."""


def drive(situation: Situation) -> Driven:
    """Return the attempts with surplus ones closed and missing ones opened."""
    leaving = {a.token for a in situation.attempts if a.open and _has_to_go(a, situation)}
    submits: list[Submit] = []
    standings: list[Standing] = []
    for number in range(situation.target):
        prefer(situation.replica(number), situation, leaving)
        replica = situation.replica(number)
        wanted = opening(replica, situation)
        if wanted is None:
            standings.append(Standing(replica=replica))
            continue
        held = hold(replica, wanted, situation)
        if held is None:
            fresh = _next_attempt(replica, wanted, situation)
            situation.open(fresh)
            submits.append(Submit(token=fresh.token, exclude=tuple(node.name for node in situation.seen.bad_nodes)))
        standings.append(Standing(replica=situation.replica(number), hold=held))
    waits_for_gpus = any(s.hold is not None and s.hold.for_gpus for s in standings)
    return Driven(
        attempts=situation.attempts,
        submits=tuple(submits),
        standings=tuple(standings),
        wants_gpus=situation.gpus_needed if waits_for_gpus else 0,
    )


def _has_to_go(attempt: Attempt, situation: Situation) -> bool:
    """Close an attempt that there is a reason to close, or have it drain before; return whether there is one."""
    verdict = closing(attempt, situation)
    if verdict is None:
        return False
    if verdict.drains and not has_drained(attempt, situation):
        situation.put(drained_from(attempt, situation.now))
    else:
        situation.put(close(attempt, situation.now, verdict.outcome, verdict.message))
    return True


def _next_attempt(replica: Replica, wanted: Opening, situation: Situation) -> Attempt:
    desired = situation.desired
    behind = before(replica, wanted.lane, situation)
    incarnation = replica.newest.incarnation + 1 if replica.newest is not None else 1
    return Attempt(
        token=str(Token(desired.installation, desired.service_id, replica.number, incarnation)),
        service_id=desired.service_id,
        replica=replica.number,
        incarnation=incarnation,
        lane=wanted.lane,
        beside=wanted.beside,
        door=desired.door if desired.spec is not None and desired.spec.has_door else None,
        generation=desired.generation,
        digest=desired.digest,
        gpus=situation.gpus_needed,
        failures=behind.failures,
        faults=behind.faults,
        intent_at=situation.now,
    )
