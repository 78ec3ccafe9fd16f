"""decide: from what is wanted and what is seen, what to do. Pure, the heart of the controller."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from controller.core import draining, hand_over, maintenance, room
from controller.core.attempt import Attempt
from controller.core.desired import Desired
from controller.core.drive import Driven, drive
from controller.core.events import events
from controller.core.evict import evict
from controller.core.fold import Folded, fold, not_ahead
from controller.core.limits import Limits
from controller.core.observed import Observed
from controller.core.openings import Waits
from controller.core.plan import Plan, Revoke, Submit
from controller.core.published import Endpoint
from controller.core.situation import Situation
from controller.core.status import status
from controller.core.target import target


def decide(desired: Desired, seen: Observed, now: float, limits: Limits) -> Plan:
    """Return what one service needs now.

    Fold observations into the record, evict what nobody owns, drive replicas to what is wanted.
    """
    folded = [_look(attempt, desired, seen, now, limits) for attempt in seen.attempts]
    situation = Situation(desired, [f.attempt for f in folded], seen, now, limits, target(desired))
    driven = drive(situation)
    new_status = status(situation, driven.standings)
    endpoints = _endpoints(desired, driven.attempts, seen.endpoints)
    shortened = maintenance.shorten(situation)
    plan = Plan(
        attempts=_changed(seen.attempts, driven.attempts),
        endpoints=None if endpoints == seen.endpoints else endpoints,
        status=None if new_status == seen.status else new_status,
        events=(
            *events(seen.attempts, driven.attempts, seen.status, new_status),
            *maintenance.events(shortened, situation),
        ),
        # What is to be sent is recorded: a cancel that fails must not keep it from being sent.
        actions=(*driven.submits, *(a for f in folded for a in f.actions), *draining.tell_doors(situation), *shortened),
        wants_turn=any(s.hold is not None and s.hold.waits is Waits.TURN for s in driven.standings),
        wants_gpus=driven.wants_gpus,
    )
    return replace(plan, look_again_at=_look_again_at(plan, folded, driven, situation))


def _look(attempt: Attempt, desired: Desired, seen: Observed, now: float, limits: Limits) -> Folded:
    if attempt.gone_at is not None:
        return Folded(attempt=attempt)
    attempt = not_ahead(attempt, now)
    if attempt.open:
        spec = desired.spec if attempt.digest == desired.digest else None
        return fold(draining.shut(attempt, seen, now, limits), seen, spec, now, limits)
    return evict(attempt, seen, now, limits)


def _changed(before: Sequence[Attempt], after: Iterable[Attempt]) -> tuple[Attempt, ...]:
    known = {a.token: a for a in before}
    return tuple(a for a in after if known.get(a.token) != a)


def _endpoints(desired: Desired, attempts: Iterable[Attempt], before: Iterable[Endpoint]) -> tuple[Endpoint, ...]:
    """Return where the open attempts answer; one that has never been ready is no endpoint yet.

    An attempt serves the model that it was launched with, whatever is wanted now.
    """
    current = (desired.spec.model,) if desired.spec is not None and desired.spec.model is not None else ()
    served = {e.token: e.models for e in before}
    return tuple(
        Endpoint(
            token=a.token,
            replica=a.replica,
            models=current if a.digest == desired.digest else served.get(a.token, ()),
            host=a.host,
            port=a.port,
            door=a.door,
            ready=a.serves,
        )
        for a in sorted(attempts, key=lambda a: (a.replica, a.token))
        if a.open and a.ready_at is not None and a.host is not None and a.port is not None
    )


def _look_again_at(plan: Plan, folded: Iterable[Folded], driven: Driven, situation: Situation) -> float | None:
    now, seen, limits = situation.now, situation.seen, situation.limits
    if any(isinstance(action, Submit | Revoke) for action in plan.actions):
        return now + limits.soon
    open_before = {a.token for a in seen.attempts if a.open}
    if any(not attempt.open and attempt.token in open_before for attempt in plan.attempts):
        # What was closed in this pass is evicted by the next one.
        return now
    times = [f.look_again_at for f in folded if f.look_again_at is not None]
    times += [s.hold.until for s in driven.standings if s.hold is not None and s.hold.until is not None]
    times += hand_over.look_again_at(situation)
    times += room.look_again_at(situation)
    times += maintenance.look_again_at(situation)
    if seen.reading_failure is not None:
        times.append(seen.reading_failure.since + limits.silence)
    # What was due already waits for something else: for the cluster, or for people. That wakes us.
    return min((t for t in times if t > now), default=None)
