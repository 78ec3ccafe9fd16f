"""Draining: an attempt gets no new requests, finishes those it has, and is then closed.

Once all gateways that live have heard of it, its door is told to let nobody new in, so that one which has not heard, or
can't, meets a closed door before the first byte and goes elsewhere. From then on nobody new comes, and when nothing is
in flight any more it has drained. What neither gateways nor door can be told holds it up for a bounded time.
"""

from __future__ import annotations

from dataclasses import replace

from controller.core.attempt import Attempt
from controller.core.job_files import JobFiles
from controller.core.limits import Limits
from controller.core.observed import Observed
from controller.core.plan import Drain, Reopen
from controller.core.situation import Situation


def drained_from(attempt: Attempt, now: float) -> Attempt:
    """Return an attempt that drains."""
    return attempt if attempt.draining_since is not None else replace(attempt, draining_since=now)


def undrained(attempt: Attempt) -> Attempt:
    """Return an attempt that gets new requests again."""
    return replace(attempt, draining_since=None, draining_feed=None, shut_at=None)


def shut(attempt: Attempt, seen: Observed, now: float, limits: Limits) -> Attempt:
    """Note since when nobody new comes to an attempt that drains; a gateway that comes back may not have heard.

    All gateways that live must have heard, and its door must have been told; after `drain_hears` either is enough.
    """
    if attempt.draining_since is None:
        return attempt
    enough = any if _is_late(attempt, now, limits) else all
    is_shut = enough((_is_heard(attempt, seen), attempt.door is None or _is_told(attempt, seen)))
    return replace(attempt, shut_at=(attempt.shut_at or now) if is_shut else None)


def tell_doors(situation: Situation) -> list[Drain | Reopen]:
    """Return what doors are to be told: to let nobody new in where who asks goes elsewhere, or to let them in again."""
    actions: list[Drain | Reopen] = []
    for attempt in (a for a in situation.attempts if a.open and a.door is not None):
        is_told = _is_told(attempt, situation.seen)
        if is_told and attempt.draining_since is None:
            actions.append(Reopen(token=attempt.token))
        elif not is_told and _may_shut(attempt, situation):
            actions.append(Drain(token=attempt.token))
    return actions


def has_drained(attempt: Attempt, situation: Situation) -> bool:
    """Whether an attempt that is to go has finished what it had, or had time enough; one that never served has."""
    until = must_end_at(attempt, situation.limits)
    is_late = until is not None and situation.now >= until
    return not attempt.ready or is_late or is_drained(attempt, situation)


def is_drained(attempt: Attempt, situation: Situation) -> bool:
    """Whether nobody new comes, and nothing has been in flight for as long as a request may be on its way to it.

    The engine's own count says so, by the time of the probes, which know that it drains once that is recorded: who
    stops between deciding and recording shortens nothing. Or its door does, for engines that do not count.
    """
    if attempt.shut_at is None:
        return False
    settled_at = attempt.shut_at + situation.limits.drain_settles
    if _is_told(attempt, situation.seen) and situation.seen.files[attempt.token].is_empty:
        return situation.now >= settled_at
    # What was quiet before nobody new came says nothing.
    probe = situation.seen.probes.get(attempt.token)
    if probe is None or probe.quiet_since is None:
        return False
    return probe.at >= max(probe.quiet_since + situation.limits.drain_settles, settled_at)


def must_end_at(attempt: Attempt, limits: Limits) -> float | None:
    """Return until when a draining attempt may finish what it has."""
    return None if attempt.draining_since is None else attempt.draining_since + limits.drain_most


def _may_shut(attempt: Attempt, situation: Situation) -> bool:
    """Whether it drains, and those who route requests have heard so, or had time to."""
    is_late = _is_late(attempt, situation.now, situation.limits)
    return attempt.draining_since is not None and (is_late or _is_heard(attempt, situation.seen))


def _is_late(attempt: Attempt, now: float, limits: Limits) -> bool:
    return attempt.draining_since is not None and now >= attempt.draining_since + limits.drain_hears


def _is_heard(attempt: Attempt, seen: Observed) -> bool:
    """Whether every gateway that lives routes nothing to it; where none lives, there is none to do so."""
    return attempt.draining_feed is not None and (seen.heard is None or seen.heard >= attempt.draining_feed)


def _is_told(attempt: Attempt, seen: Observed) -> bool:
    return seen.files.get(attempt.token, JobFiles()).is_told_to_drain
