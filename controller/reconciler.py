"""One key, one pass: observe, decide, record, act, report."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from api.contract.log import about
from controller.act import ActionExecutor
from controller.cluster.pace import Pace
from controller.cluster.quotas import Quotas
from controller.cluster.tracked_attempts import TrackedAttempts
from controller.core.decide import decide
from controller.core.model import Attempt, Limits, Plan, Submit
from controller.observe import Cluster, observe
from controller.ports import Clock, Probes, Record, RunDirs, Store, Term
from controller.report import Pass, report


class Reconciler:
    """Reconciles services, one pass at a time each, under one term that was captured once."""

    def __init__(
        self,
        *,
        term: Term,
        store: Store,
        cluster: Cluster,
        run_dirs: RunDirs,
        probes: Probes,
        executor: ActionExecutor,
        tracked: TrackedAttempts,
        hurry: Callable[[], None],
        clock: Clock,
        limits: Limits,
        pace: Pace,
        quotas: Quotas,
        report: Callable[[Pass], None] = report,
    ) -> None:
        self._term = term
        self._store = store
        self._cluster = cluster
        self._run_dirs = run_dirs
        self._probes = probes
        self._executor = executor
        self._tracked = tracked
        self._hurry = hurry
        self._clock = clock
        self._limits = limits
        self._pace = pace
        self._quotas = quotas
        self._report = report

    async def reconcile(self, key: str) -> float | None:
        """Make one pass over a service; return when to look at it again by ourselves.

        Raises `DeposedError` when the term is over, and what the database, the cluster or the file system raise.
        """
        record = await self._store.load(key)
        if record is None:
            self._quotas.forget(key)
            return None
        with about(generation=record.desired.generation):
            return await self._reconcile(record)

    async def _reconcile(self, record: Record) -> float | None:
        key = record.desired.service_id
        seen = await observe(
            record,
            self._cluster,
            self._run_dirs,
            self._probes,
            self._executor,
            term_began_at=self._term.began_at,
            allowance=self._pace.allowance(key),
        )
        now = self._clock.now()
        seen = replace(seen, quota=self._quotas.of(key))
        plan = decide(record.desired, seen, now, self._limits)
        attempts = _after(record, plan)
        self._quotas.promise(key, attempts)
        await self._store.record(self._term, record, plan, now)
        self._tracked.update(attempts)
        self._quotas.settle(key, plan)
        turn = self._take_turn(key, plan)
        done = Pass(term=self._term, record=record, seen=seen, now=now, limits=self._limits, plan=plan)
        try:
            await self._executor.act(self._term, record, attempts, plan.actions)
        except BaseException as error:
            self._report(replace(done, failure=f"{type(error).__name__}: {error}"))
            raise
        self._report(done)
        if plan.attempts or plan.actions:
            self._hurry()
        return min((t for t in (plan.look_again_at, turn) if t is not None), default=None)

    def _take_turn(self, key: str, plan: Plan) -> float | None:
        """Count what the plan submits; reserve a turn for what it would like to submit."""
        submits = sum(isinstance(action, Submit) for action in plan.actions)
        for _ in range(submits):
            self._pace.submitted(key)
        if plan.wants_turn:
            return self._pace.reserve(key)
        self._pace.release(key)
        return None


def _after(record: Record, plan: Plan) -> tuple[Attempt, ...]:
    """Return the attempts as they are after the plan was recorded."""
    current = {a.token: a for a in (*record.attempts, *plan.attempts)}
    return tuple(current.values())
