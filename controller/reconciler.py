"""One key, one pass: observe, decide, record, act, report."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from api.contract.log import about
from controller.act import ActionExecutor
from controller.cluster.cluster import Cluster
from controller.core.attempt import Attempt
from controller.core.decide import decide
from controller.core.limits import Limits
from controller.core.plan import Plan
from controller.observe import observe
from controller.ports import Clock, Record, Store, Term
from controller.report import Pass, report


class Reconciler:
    """Reconciles services, one pass at a time each, under one term that was captured once."""

    def __init__(
        self,
        *,
        term: Term,
        store: Store,
        cluster: Cluster,
        executor: ActionExecutor,
        clock: Clock,
        limits: Limits,
        report: Callable[[Pass], None] = report,
    ) -> None:
        self._term = term
        self._store = store
        self._cluster = cluster
        self._executor = executor
        self._clock = clock
        self._limits = limits
        self._report = report

    async def reconcile(self, key: str) -> float | None:
        """Make one pass over a service; return when to look at it again by ourselves.

        Raises `DeposedError` when the term is over, and what the database, the cluster or the file system raise.
        """
        record = await self._store.load(key)
        if record is None:
            self._cluster.admission.forget(key)
            return None
        with about(generation=record.desired.generation):
            return await self._reconcile(record)

    async def _reconcile(self, record: Record) -> float | None:
        seen = await observe(record, self._cluster, term_began_at=self._term.began_at)
        now = self._clock.now()
        plan = decide(record.desired, seen, now, self._limits)
        attempts = _after(record, plan)
        turn = await self._record(record, plan, attempts, now)
        done = Pass(term=self._term, record=record, seen=seen, now=now, limits=self._limits, plan=plan)
        try:
            await self._executor.act(self._term, record, attempts, plan.actions)
        except BaseException as error:
            self._report(replace(done, failure=f"{type(error).__name__}: {error}"))
            raise
        self._report(done)
        if plan.attempts or plan.actions:
            self._cluster.rhythm.hurry()
        return min((t for t in (plan.look_again_at, turn) if t is not None), default=None)

    async def _record(self, record: Record, plan: Plan, attempts: tuple[Attempt, ...], now: float) -> float | None:
        """Record a plan; what its attempts take is held before that, and settled once they are tracked.

        Return when the service's turn to submit comes, if it has to wait for one.
        """
        key, admission = record.desired.service_id, self._cluster.admission
        admission.hold(key, attempts)
        await self._store.record(self._term, record, plan, now)
        self._cluster.tracked.update(attempts)
        self._cluster.node_records.update(attempts)
        return admission.settle(key, plan)


def _after(record: Record, plan: Plan) -> tuple[Attempt, ...]:
    """Return the attempts as they are after the plan was recorded."""
    current = {a.token: a for a in (*record.attempts, *plan.attempts)}
    return tuple(current.values())
