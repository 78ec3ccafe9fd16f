"""The controller's metrics, for Prometheus. What is counted is counted in passing; states are read when asked for."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, disable_created_metrics
from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from controller.core.attempt import HandOverReason
from controller.ports import DeposedError
from controller.report import Pass
from controller.runtime.leading import Leading
from controller.telemetry.convergence import Convergence
from controller.telemetry.hand_overs import Gaps, hand_overs

PREFIX = "ai_factory_"
PASS_RESULTS = ("ok", "failed", "deposed")
READING_RESULTS = ("ok", "failed")
ACTIONS = ("submit", "cancel", "revoke")
ENDS = ("ready", "stopped", "completed")
ATTEMPT_STATES = ("queued", "starting", "ready", "ending")
COMMANDS = ("squeue", "sacct", "sinfo", "sbatch", "scancel")
OUTCOMES = ("ok", "failed", "killed", "not started")
_PASS_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_HAND_OVER_SECONDS = (1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600)
_CONVERGENCE_SECONDS = (1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 21600, 86400)


class Metrics:
    """All metrics of one controller process; a witness of its terms. Every series is there, at zero, from the start."""

    def __init__(self, leading: Callable[[], Leading | None], calls: Mapping[tuple[str, str], int]) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        registry = CollectorRegistry()
        self._registry = registry
        self._passes = Counter(f"{PREFIX}passes", "Passes, by how they ended", ["result"], registry=registry)
        self._pass_seconds = Histogram(
            f"{PREFIX}pass_seconds", "How long passes took", buckets=_PASS_SECONDS, registry=registry
        )
        self._readings = Counter(f"{PREFIX}readings", "Readings of the cluster", ["result"], registry=registry)
        self._actions = Counter(f"{PREFIX}actions", "Actions that were decided on", ["kind"], registry=registry)
        self._converged = Histogram(
            f"{PREFIX}convergence_seconds",
            "From a change of a service until it is as wanted",
            ["to"],
            buckets=_CONVERGENCE_SECONDS,
            registry=registry,
        )
        self._hand_overs = Counter(
            f"{PREFIX}hand_overs", "Hand-overs that came to their end, by why they were begun", ["reason"],
            registry=registry,
        )  # fmt: skip
        self._overlaps = Histogram(
            f"{PREFIX}hand_over_overlap_seconds",
            "How long both jobs of a hand-over were held",
            buckets=_HAND_OVER_SECONDS,
            registry=registry,
        )
        self._gap_seconds = Histogram(
            f"{PREFIX}gap_seconds",
            "How long a replica that had been ready had no ready attempt, until the next",
            buckets=_HAND_OVER_SECONDS,
            registry=registry,
        )
        for metric, values in (
            (self._passes, PASS_RESULTS),
            (self._hand_overs, HandOverReason),
            (self._readings, READING_RESULTS),
            (self._actions, ACTIONS),
            (self._converged, ENDS),
        ):
            for value in values:
                metric.labels(value)
        self._convergence = Convergence()
        self._gaps = Gaps()
        registry.register(_States(leading, calls))
        ProcessCollector(registry=registry)

    def text(self) -> bytes:
        """Return all of them in Prometheus' text format."""
        return generate_latest(self._registry)

    @contextmanager
    def passing(self) -> Iterator[None]:
        """Time one pass. One that is broken off by the end of the program counts as none."""
        began = time.perf_counter()
        try:
            yield
        except DeposedError:
            self._passes.labels("deposed").inc()
            raise
        except Exception:
            self._passes.labels("failed").inc()
            raise
        self._passes.labels("ok").inc()
        self._pass_seconds.observe(time.perf_counter() - began)

    def has_read(self, *, well: bool) -> None:
        """Count one reading of the cluster."""
        self._readings.labels("ok" if well else "failed").inc()

    def report(self, done: Pass) -> None:
        """Count what a pass decided on, once it was carried out or broken off."""
        for action in done.plan.actions:
            self._actions.labels(type(action).__name__.lower()).inc()
        end = self._convergence.after(done)
        if end is not None:
            to, seconds = end
            self._converged.labels(to).observe(seconds)
        for one in hand_overs(done):
            self._hand_overs.labels(one.reason).inc()
            self._overlaps.observe(one.overlap)
        for gap in self._gaps.after(done):
            self._gap_seconds.observe(gap)

    def new_term(self) -> None:
        """Forget what began before this term."""
        self._convergence.forget()
        self._gaps.forget()


class _States(Collector):
    """What is read when somebody asks: the state of the term, and the counts that others keep."""

    def __init__(self, leading: Callable[[], Leading | None], calls: Mapping[tuple[str, str], int]) -> None:
        self._leading = leading
        self._calls = calls

    def collect(self) -> Iterable[Metric]:
        leading = self._leading()
        yield _gauge("leader", "1 while this controller leads", leading is not None)
        yield _gauge("epoch", "The epoch under which it leads; 0: it does not", leading.term.epoch if leading else 0)
        keys, oldest = leading.queue.overdue() if leading else (0, 0.0)
        yield _gauge("queue_keys", "Services that are due and wait for a worker", keys)
        yield _gauge("queue_oldest_seconds", "How long the first of them has waited", oldest)
        snapshot = leading.cluster.snapshots.latest if leading else None
        age = leading.cluster.clock.now() - snapshot.began_at if leading and snapshot else float("nan")
        yield _gauge("snapshot_age_seconds", "Age of the newest reading of the cluster; NaN: there is none", age)
        unknown = len(leading.cluster.orphans.unknown) if leading else 0
        yield _gauge("unknown_tokens", "Tokens on the cluster that the database has never heard of", unknown)
        gpus = leading.cluster.tracked.gpus() if leading else 0
        yield _gauge("gpus", "GPUs that the jobs of attempts ask for that are not gone", gpus)
        yield self._attempts(leading)
        yield self._slurm_calls()

    @staticmethod
    def _attempts(leading: Leading | None) -> Metric:
        family = GaugeMetricFamily(f"{PREFIX}attempts", "Attempts that are not gone, by state", labels=["state"])
        states = leading.cluster.tracked.states() if leading else {}
        for state in ATTEMPT_STATES:
            family.add_metric([state], states.get(state, 0))
        return family

    def _slurm_calls(self) -> Metric:
        labels = ["command", "outcome"]
        family = CounterMetricFamily(f"{PREFIX}slurm_calls", "Slurm commands that were run", labels=labels)
        zeros = {(command, outcome): 0 for command in COMMANDS for outcome in OUTCOMES}
        for (command, outcome), count in sorted({**zeros, **self._calls}.items()):
            family.add_metric([command, outcome.replace(" ", "_")], count)
        return family


def _gauge(name: str, about: str, value: float) -> Metric:
    return GaugeMetricFamily(PREFIX + name, about, value=float(value))
