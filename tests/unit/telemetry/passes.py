"""Passes as `report` is told of them."""

from __future__ import annotations

from typing import Any

from controller.core.decide import decide
from controller.core.desired import Desired
from controller.core.limits import Limits
from controller.core.observed import Observed
from controller.core.plan import Plan
from controller.core.published import Status
from controller.ports import Record, Term
from controller.report import Pass

NOW = 1000.0


def a_pass(plan: Plan | None = None, *, now: float = NOW, seen: Observed | None = None, **about: Any) -> Pass:
    """Return a pass over the service `one`; without a plan, the one that is decided on."""
    desired = Desired(**{
        "installation": "i9", "service_id": "one", "name": "chat", "generation": 1, "running": True, "replicas": 1,
        "spec": None, "digest": "d", **{k: v for k, v in about.items() if k != "status"},
    })  # fmt: skip
    status = about.get("status", Status())
    seen = seen or Observed(
        attempts=(), endpoints=(), status=status, snapshot=None, reading_failure=None, files={}, probes={}, sent={},
        cancelled={},
    )  # fmt: skip
    limits = Limits()
    return Pass(
        term=Term(epoch=3, began_at=0.0),
        record=Record(desired=desired, status=status, endpoints=(), attempts=seen.attempts),
        seen=seen,
        now=now,
        limits=limits,
        plan=plan if plan is not None else decide(desired, seen, now, limits),
    )
