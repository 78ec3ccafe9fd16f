"""How often a replica may fail: how long to wait after failures, and when to give up."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

from api.contract.job.words import ExitReason
from controller.core.attempt import Attempt
from controller.core.desired import Desired
from controller.core.limits import Limits
from controller.core.outcomes import WISHED, Outcome, is_fault, is_mistake

TRIES_OF_A_MISTAKE = 2
"""How often what trying again does not mend is tried: the second time is for another node, or a file that was late."""


@dataclass(frozen=True, slots=True)
class InARow:
    """What failed in a row."""

    failures: int = 0
    """All that ended too soon, whatever ended it: they make the next attempt wait."""
    faults: int = 0
    """Those that speak against what was launched: they alone count towards giving up."""


def after(last: Attempt, limits: Limits) -> InARow:
    """Return what stands behind a replica whose newest attempt is `last`, closed."""
    if last.outcome in WISHED or last.closed_at is None or last.draining_since is not None:
        return InARow()  # what drained was told to end, or another had its traffic: how it ends says nothing
    before = InARow() if _was_steady(last, limits) else InARow(last.failures, last.faults)
    if is_fault(last):
        return InARow(before.failures + 1, before.faults + 1)
    began = last.started_at if last.started_at is not None else last.closed_at
    is_quick = last.closed_at - began < limits.quick_end
    return InARow(before.failures + 1, before.faults) if is_quick else InARow()


def retry_at(last: Attempt, failures: int, limits: Limits) -> float:
    """Return when the next attempt may begin: exponential back-off, spread by up to a quarter.

    The spread is drawn from the token, so that deciding again decides the same.
    """
    if failures <= 0 or last.closed_at is None:
        return last.closed_at or 0.0
    delay = min(limits.backoff_first * 2.0 ** min(failures - 1, 30), limits.backoff_most)
    spread = zlib.crc32(last.token.encode()) / 2**32
    return last.closed_at + delay * (1 + spread / 4)


def final_word(last: Attempt, desired: Desired, limits: Limits) -> str | None:
    """Return why this replica is not tried again in this generation; `None` if it is."""
    if desired.spec is None or last.digest != desired.digest or last.outcome is None:
        return None
    if last.generation != desired.generation and last.outcome != Outcome.COMPLETED:
        return None
    if last.outcome == Outcome.COMPLETED and desired.spec.kind == "job":
        return Outcome.COMPLETED
    if last.outcome == Outcome.SUBMIT_REJECTED:
        return f"Slurm refused the job: {last.message}"
    if last.outcome == ExitReason.VOLUME_IN_USE:
        return f"It may not start: {last.message}"
    never_ready = last.ready_at is None or desired.spec.kind == "job"
    faults = after(last, limits).faults
    most = desired.spec.max_failures
    tries = min(most, TRIES_OF_A_MISTAKE) if is_mistake(last) and never_ready else most
    is_judged = never_ready or last.outcome == Outcome.OUT_OF_MEMORY  # which comes again, ready or not
    if is_fault(last) and is_judged and faults >= tries:
        often = f"{faults} times in a row. The last time: " if faults > 1 else ""
        return f"It failed {often}{last.outcome}: {last.message}"
    return None


def _was_steady(last: Attempt, limits: Limits) -> bool:
    end = last.unready_since or last.closed_at
    return last.ready_at is not None and end is not None and end - last.ready_at >= limits.steady_after
