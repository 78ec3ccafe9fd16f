"""report: tell the log what a pass did. Whoever else wants to know is given the whole pass."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from controller.core.limits import Limits
from controller.core.observed import Observed
from controller.core.plan import Plan
from controller.ports import Record, Term

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pass:
    """One pass whose plan is recorded: what it was decided on, the plan, and what came of carrying it out."""

    term: Term
    record: Record
    seen: Observed
    now: float
    limits: Limits
    plan: Plan
    failure: str = ""
    """What broke the carrying out off; empty: every action of the plan was carried out."""


def report(done: Pass) -> None:
    """Log the events and actions of a plan."""
    for event in done.plan.events:
        level = logging.WARNING if event.warning else logging.INFO
        about = {"service_name": done.record.desired.name, "reason": event.reason, "text": event.message}
        log.log(level, "event", extra=about)
    if done.plan.actions:
        actions = [f"{type(a).__name__} {a.token}" for a in done.plan.actions]
        log.debug("actions", extra={"actions": actions, "failure": done.failure or None})
