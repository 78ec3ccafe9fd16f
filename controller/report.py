"""report: tell the log what a pass did. Every non-empty plan, in full."""

from __future__ import annotations

import logging

from controller.core.model import Plan
from controller.ports import Record, Term

log = logging.getLogger(__name__)


def report(term: Term, record: Record, plan: Plan) -> None:
    """Log the events and actions of a plan."""
    about = {"service": record.desired.service_id, "generation": record.desired.generation, "epoch": term.epoch}
    for event in plan.events:
        level = logging.WARNING if event.warning else logging.INFO
        log.log(level, "%s: %s: %s", record.desired.name, event.reason, event.message, extra=about)
    if plan.actions:
        log.debug("%s: %s", record.desired.name, plan.actions, extra=about)
