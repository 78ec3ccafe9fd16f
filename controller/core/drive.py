"""Drive the slots of a service to what is wanted: close what is not, open what is missing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from api.contract.identity import Token
from api.contract.launch import LaunchSpec
from controller.core import evidence
from controller.core.fold import close
from controller.core.model import Attempt, Desired, Limits, Observed, Submit
from controller.core.outcomes import Outcome
from controller.core.policies import failures_after, final_word, may_begin, may_replace, retry_at
from controller.core.quota import Excess, excess, gpus_asked, spent


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """One replica: the attempts that still matter, the newest of them, and what keeps it from being tried."""

    replica: int
    newest: Attempt | None
    waits_until: float | None = None
    """Back-off."""
    given_up: str | None = None
    """`Completed`, or why it is not tried again in this generation."""
    wants_turn: bool = False
    """Whether only the pace of submissions keeps it from being tried."""
    over_quota: Excess | None = None
    """The ceiling that keeps it from being tried."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Driven:
    """The attempts after driving, what to submit, and the slots that are wanted."""

    attempts: tuple[Attempt, ...]
    submits: tuple[Submit, ...]
    slots: tuple[Slot, ...]
    wants_gpus: int = 0
    """GPUs that the next replica waits for others to give back."""


def drive(desired: Desired, attempts: Sequence[Attempt], seen: Observed, now: float, limits: Limits) -> Driven:
    """Return the attempts with surplus ones closed and missing ones opened."""
    current = {a.token: a for a in attempts}
    for attempt in attempts:
        reason = _surplus(attempt, desired, list(current.values()), seen)
        if attempt.open and reason is not None:
            current[attempt.token] = close(attempt, now, *reason)
    needed = gpus_asked(desired.spec.resources) if desired.spec is not None else 0
    submits: list[Submit] = []
    slots: list[Slot] = []
    for replica in range(desired.replicas) if desired.running else ():
        slot = _slot(replica, desired, list(current.values()), now, limits)
        may_open = _may_open(slot, desired, list(current.values()), seen, now)
        over_quota = excess(seen.quota, needed, current.values())
        if may_open and over_quota is not None:
            slot = replace(slot, over_quota=over_quota)
        elif may_open and seen.allowance is not None and len(submits) >= seen.allowance:
            slot = replace(slot, wants_turn=True)
        elif may_open:
            fresh = _next_attempt(slot, desired, needed, now, limits)
            current[fresh.token] = fresh
            submits.append(Submit(token=fresh.token))
            slot = Slot(replica=replica, newest=fresh)
        slots.append(slot)
    waits = any(s.over_quota is not None and s.over_quota.others_may_help for s in slots)
    return Driven(
        attempts=tuple(current.values()),
        submits=tuple(submits),
        slots=tuple(slots),
        wants_gpus=needed if waits else 0,
    )


def _surplus(
    attempt: Attempt, desired: Desired, all_attempts: Sequence[Attempt], seen: Observed
) -> tuple[str, str] | None:
    """Say why an attempt is not wanted any more; `None` if it is."""
    if not desired.running:
        return Outcome.STOPPED, "The service was stopped."
    if desired.spec is None:
        return None
    used_up = spent(seen.quota) if attempt.gpus else None
    if used_up is not None:
        return Outcome.QUOTA_EXCEEDED, used_up
    if attempt.replica >= desired.replicas:
        return Outcome.SCALED_DOWN, f"The service was scaled to {desired.replicas}."
    if attempt.digest == desired.digest or not _is_certain(attempt, seen):
        return None
    others = [a for a in all_attempts if a.open and a.token != attempt.token and a.replica < desired.replicas]
    possible = _possible(desired, desired.spec, all_attempts, seen)
    if not may_replace(attempt, others, possible, desired.spec.update_strategy):
        return None
    return Outcome.OUTDATED, f"The service was changed (generation {desired.generation})."


def _possible(desired: Desired, spec: LaunchSpec, attempts: Sequence[Attempt], seen: Observed) -> int:
    """Return how many replicas there can be now: what a ceiling leaves no room for is not waited for."""
    if excess(seen.quota, gpus_asked(spec.resources), attempts) is None:
        return desired.replicas
    return len({a.replica for a in attempts if a.gone_at is None and a.replica < desired.replicas})


def _slot(replica: int, desired: Desired, attempts: Sequence[Attempt], now: float, limits: Limits) -> Slot:
    mine = [a for a in attempts if a.replica == replica]
    newest = max(mine, key=lambda a: a.incarnation, default=None)
    if newest is None or newest.open:
        return Slot(replica=replica, newest=newest)
    word = final_word(newest, desired, limits)
    failures = failures_after(newest, limits) if newest.digest == desired.digest else 0
    # One that was closed in our future was closed by another clock: how long ago that is nobody can tell.
    is_ahead = newest.closed_at is not None and newest.closed_at > now + evidence.CLOCKS_APART
    waits_until = None if is_ahead else retry_at(newest, failures, limits)
    return Slot(replica=replica, newest=newest, given_up=word, waits_until=waits_until)


def _may_open(slot: Slot, desired: Desired, attempts: Sequence[Attempt], seen: Observed, now: float) -> bool:
    """Whether an attempt may be opened: the cluster answers, and nothing of an earlier one is left on it."""
    if desired.spec is None or not _readable(seen):
        return False
    if slot.given_up is not None or (slot.waits_until is not None and now < slot.waits_until):
        return False
    if any(stray.replica == slot.replica for stray in seen.strays):
        return False
    return may_begin(desired, attempts) and all(a.gone_at is not None for a in attempts if a.replica == slot.replica)


def _readable(seen: Observed) -> bool:
    """Whether the cluster answers: nothing is begun, and nothing that serves is replaced, while it does not."""
    return seen.snapshot is not None and seen.reading_failure is None


def _is_certain(attempt: Attempt, seen: Observed) -> bool:
    """Whether the cluster answers, and is to be believed about this attempt: else it is not replaced."""
    return _readable(seen) and not evidence.is_doubted(attempt, seen)


def _next_attempt(slot: Slot, desired: Desired, gpus: int, now: float, limits: Limits) -> Attempt:
    last = slot.newest
    incarnation = last.incarnation + 1 if last is not None else 1
    return Attempt(
        token=str(Token(desired.installation, desired.service_id, slot.replica, incarnation)),
        service_id=desired.service_id,
        replica=slot.replica,
        incarnation=incarnation,
        generation=desired.generation,
        digest=desired.digest,
        gpus=gpus,
        failures=failures_after(last, limits) if last is not None and last.digest == desired.digest else 0,
        intent_at=now,
    )
