"""Months of hand-overs in virtual time: the lead that is learnt, beside fixed ones.

The lead is the controller's own (`controller.core.lead`). Each seed is a site with its queue, limits and mishaps; every
policy meets the same site: what happens hangs on the seed, the replica and the half hour, not on who asks.
"""

from __future__ import annotations

import heapq
import math
import random
import statistics
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

from bench.figures import Table
from controller.core.lead import Lead, Measured, Way, measured

SEEDS = tuple(f"site-{number:02}" for number in range(100))
REPLICAS = 2
HOUR, DAY = 3600.0, 86400.0
SCHEDULED_EVERY = 60.0
"""What waits for room is looked at as often."""
MONTHS = 3
LASTS = MONTHS * 30 * DAY
MAINTENANCE_EVERY, MAINTENANCE = 30 * DAY, 8 * HOUR
DRAIN_MOST = 300.0
LOOKS = 1800.0
"""Between two looks at a lead that may have changed."""
REMEMBERS = 200
FIXED = (5, 15, 60, 240)
"""Minutes."""


@dataclass(frozen=True)
class Site:
    """What one seed stands for. Spans in seconds."""

    name: str
    time_limit: float
    startup: float
    """The median one."""
    wait: float
    """The median one, in the middle of the day's rhythm."""
    spread: float
    """Of the logarithm of waits; where they are Pareto's, its exponent's inverse."""
    is_pareto: bool
    rhythm: float
    """How much longer than at the mean one waits in the afternoon; so much shorter at night."""
    preempted_after: float
    """On average; infinite where nothing is preempted."""
    has_room: bool
    """Whether two jobs of a replica may run at a time."""

    @classmethod
    def of(cls, name: str) -> Site:
        """Draw a site."""
        rng = random.Random(name)
        return cls(
            name=name,
            time_limit=rng.choice((4, 12, 24, 48)) * HOUR,
            startup=rng.choice((60.0, 180.0, 480.0, 900.0)),
            wait=rng.choice((20.0, 120.0, 600.0, 2400.0)),
            spread=rng.uniform(0.4, 1.2),
            is_pareto=rng.random() < 0.3,
            rhythm=rng.uniform(0.0, 0.8),
            preempted_after=rng.choice((math.inf, math.inf, 7 * DAY, 21 * DAY)),
            has_room=rng.random() < 0.85,
        )

    def waits(self, replica: int, at: float) -> float:
        """Return how long a job that is submitted then waits for a node."""
        rng = self._rng("wait", replica, at)
        if self.is_pareto:
            factor = (rng.paretovariate(1 / self.spread)) / 2**self.spread
        else:
            factor = rng.lognormvariate(0.0, self.spread)
        afternoon = math.cos(2 * math.pi * (at / DAY - 15 / 24))
        weekend = 0.4 if at // DAY % 7 >= 5 else 1.0
        return min(self.wait * factor * (1 + self.rhythm * afternoon) * weekend, 3 * DAY)

    def starts(self, replica: int, at: float) -> float:
        """Return how long an engine takes to answer."""
        return self.startup * self._rng("startup", replica, at).lognormvariate(0.0, 0.25)

    def drains(self, replica: int, at: float) -> float:
        """Return how long an old one has something in flight."""
        return min(5.0 + self._rng("drain", replica, at).expovariate(1 / 40), DRAIN_MOST)

    def preempts(self, replica: int, at: float) -> float:
        """Return after what time a job that began then is preempted."""
        if math.isinf(self.preempted_after):
            return math.inf
        return self._rng("preemption", replica, at).expovariate(1 / self.preempted_after)

    def runs(self, at: float) -> tuple[float, float]:
        """Return from when to when a job may run that had a node then: one that fits in before the maintenance.

        It is shortened to what fits, down to a quarter.
        """
        opens, closes = _maintenance_after(at)
        if opens - at >= self.time_limit / 4:
            return at, min(at + self.time_limit, opens)
        return closes + 60.0, closes + 60.0 + self.time_limit

    def _rng(self, what: str, replica: int, at: float) -> random.Random:
        return random.Random(f"{self.name} {what} {replica} {at // LOOKS:.0f}")


def _maintenance_after(at: float) -> tuple[float, float]:
    """Return the window that is open then, or is the next one."""
    closes = (at // MAINTENANCE_EVERY + 1) * MAINTENANCE_EVERY
    return closes - MAINTENANCE, closes


@dataclass(eq=False)
class Run:
    """One job of a replica."""

    replica: int
    intent_at: float
    began_at: float = math.inf
    ready_at: float = math.inf
    ends_at: float = math.inf
    """By its limit."""
    ended_at: float = math.inf
    preferred_until: float = math.inf
    """When another one took over, or it ended."""

    @property
    def lasts(self) -> float:
        """How long it may run."""
        return self.ends_at - self.began_at


@dataclass
class Past:
    """What has been measured so far."""

    ways: deque[Way] = field(default_factory=lambda: deque(maxlen=REMEMBERS))
    waits: Measured = field(default_factory=Measured)
    startups: Measured = field(default_factory=Measured)

    def learn(self, way: Way) -> None:
        """Take one more."""
        self.ways.append(way)
        self.waits, self.startups = measured(w.wait for w in self.ways), measured(w.startup for w in self.ways)


Policy = Callable[["Months", Run], float]
"""When the successor of a job is to be opened, as things are."""


def fixed(minutes: float) -> Policy:
    """A lead that is the same everywhere, up to half of a job's time."""
    return lambda _, run: run.ends_at - min(minutes * 60, run.lasts / 2)


def learnt(months: Months, run: Run) -> float:
    """The controller's own."""
    past, now = months.past, months.now
    queued = [other for other in months.queued() if months.site.has_room]
    wait = past.waits.expected(own=run.began_at - run.intent_at)
    needed = Lead(
        wait=max([wait, *(now - other.intent_at for other in queued)]),
        startup=past.startups.expected(own=run.ready_at - run.began_at),
        drain=DRAIN_MOST,
    )
    mine = (run.ends_at, run.replica)
    others = [(o.ends_at, o.replica) for o in months.serving.values() if o is not run and o.ready_at <= now]
    after = sum(mine < other < (run.ends_at + needed.total, -1) for other in others)
    return needed.before(run.ends_at, lasts=run.lasts, others=after)


class Months:
    """One service at one site, under one policy."""

    def __init__(self, site: Site, policy: Policy) -> None:
        self.site = site
        self.now = 0.0
        self.past = Past()
        self.serving: dict[int, Run] = {}
        """By replica, what is preferred or, before that, on its way."""
        self._successors: dict[int, Run] = {}
        self.runs: list[Run] = []
        self.gaps = 0
        self._policy = policy
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = count()

    def run(self) -> Months:
        """Let the months go by."""
        for replica in range(REPLICAS):
            self.serving[replica] = self._open(replica)
        while self._events and self._events[0][0] < LASTS:
            self.now, _, work = heapq.heappop(self._events)
            work()
        return self

    def queued(self) -> Iterator[Run]:
        """Give what waits for a node."""
        runs = (*self.serving.values(), *self._successors.values())
        return (run for run in runs if run.began_at > self.now)

    def _at(self, at: float, work: Callable[[], None]) -> None:
        heapq.heappush(self._events, (at, next(self._numbers), work))

    def _open(self, replica: int) -> Run:
        run = Run(replica, self.now)
        self.runs.append(run)
        self._at(self.now + self.site.waits(replica, self.now), lambda: self._begin(run))
        return run

    def _begin(self, run: Run) -> None:
        """Get a node, unless there is room for one job alone: then as soon as that ends."""
        old = self.serving[run.replica]
        if not self.site.has_room and old is not run and old.ended_at > self.now:
            self._at(self.now + SCHEDULED_EVERY, lambda: self._begin(run))
            return
        begins_at, ends_at = self.site.runs(self.now)
        if begins_at > self.now:
            self._at(begins_at, lambda: self._begin(run))
            return
        run.began_at, run.ends_at = self.now, ends_at
        run.ready_at = self.now + self.site.starts(run.replica, self.now)
        self._at(run.ready_at, lambda: self._ready(run))
        self._at(min(run.ends_at, self.now + self.site.preempts(run.replica, self.now)), lambda: self._end(run))

    def _ready(self, run: Run) -> None:
        if run.ended_at <= self.now:
            return
        old = self.serving[run.replica]
        is_beside = old is not run
        closed_at = old.ended_at if is_beside and old.ended_at <= run.began_at else None
        self.past.learn(
            Way(
                intent_at=run.intent_at,
                started_at=run.began_at,
                ready_at=run.ready_at,
                forerunner_closed_at=closed_at,
                forerunner_gone_at=closed_at,
            )
        )
        if is_beside:
            del self._successors[run.replica]
            self.serving[run.replica] = run
            if old.ended_at > self.now:
                old.preferred_until = self.now
                self._at(self.now + self.site.drains(run.replica, self.now), lambda: self._end(old))
        self._look(run)

    def _look(self, run: Run) -> None:
        """Open the successor if it is due, else look again."""
        if self.serving[run.replica] is not run or run.ended_at <= self.now or run.replica in self._successors:
            return
        due_at = self._policy(self, run)
        if due_at <= self.now:
            self._successors[run.replica] = self._open(run.replica)
            return
        self._at(min(due_at, self.now + LOOKS) if self._policy is learnt else due_at, lambda: self._look(run))

    def _end(self, run: Run) -> None:
        if run.ended_at <= self.now:
            return
        run.ended_at = self.now
        run.preferred_until = min(run.preferred_until, self.now)
        if self._successors.get(run.replica) is run:  # preempted before it was ready
            self._successors[run.replica] = self._open(run.replica)
        elif self.serving[run.replica] is run:
            self.gaps += run.ready_at <= self.now
            if run.replica not in self._successors:
                self._successors[run.replica] = self._open(run.replica)

    # --- what came of it

    def answered(self) -> list[tuple[float, float]]:
        """Return from when to when some replica answered."""
        return sorted((r.ready_at, min(r.preferred_until, LASTS)) for r in self.runs if r.ready_at < r.preferred_until)

    def replicas_answer(self) -> float:
        """Return the share of the time outside maintenance for which a replica answered."""
        served = sum(until - since for since, until in self.answered() if since < until)
        return served / (REPLICAS * _open_time())

    def service_answers(self) -> float:
        """Return the share for which at least one did."""
        total = covered_until = 0.0
        for since, until in self.answered():
            total += max(until - max(since, covered_until), 0.0)
            covered_until = max(covered_until, until)
        return total / _open_time()

    def extra_hours(self) -> float:
        """Return the hours a replica and month of jobs that were held beside or before what answered."""
        held = sum(min(r.ended_at, LASTS) - r.began_at for r in self.runs if r.began_at < LASTS)
        served = sum(until - since for since, until in self.answered() if since < until)
        return (held - served) / HOUR / REPLICAS / MONTHS


def _open_time() -> float:
    return LASTS - MONTHS * MAINTENANCE


@dataclass(frozen=True)
class Result:
    """What came of one policy, over all sites."""

    replicas: float
    service: float
    gaps: float
    extra: float

    def is_better(self, other: Result) -> bool:
        """Whether it is no worse in availability and cost, and better in one of them."""
        mine, its = (self.replicas, -self.extra), (other.replicas, -other.extra)
        return mine != its and mine[0] >= its[0] and mine[1] >= its[1]


def of_site(name: str, policy: Policy) -> Result:
    """Let one site go through its months."""
    months = Months(Site.of(name), policy).run()
    gaps = months.gaps / REPLICAS / MONTHS
    return Result(months.replicas_answer(), months.service_answers(), gaps, months.extra_hours())


def over_all(results: list[Result]) -> Result:
    """Return the means."""
    columns = zip(*((r.replicas, r.service, r.gaps, r.extra) for r in results), strict=True)
    return Result(*map(statistics.fmean, columns))


def measure(_: Path, seeds: tuple[str, ...] = SEEDS) -> Table:
    """Return the table."""
    policies = {"learnt": learnt, **{f"{minutes} min": fixed(minutes) for minutes in FIXED}}
    found = {name: [of_site(seed, policy) for seed in seeds] for name, policy in policies.items()}
    table = Table(
        f"Leads over {MONTHS} months at {len(seeds)} sites",
        ("lead", "a replica answers %", "the service answers %", "gaps a month", "extra hours a month"),
    )
    means = {name: over_all(results) for name, results in found.items()}
    for name, mean in means.items():
        cells = (f"{100 * mean.replicas:.3f}", f"{100 * mean.service:.4f}", f"{mean.gaps:.2f}", f"{mean.extra:.2f}")
        table.add(name, *cells)
    better = sum(mean.is_better(means["learnt"]) for mean in means.values())
    table.goal("fixed leads that are better in both availability and cost", better, 1, "")
    table.notes.append(f"Gaps and extra hours are of one replica of {REPLICAS}; maintenance is left out of the time.")
    table.notes.append("Extra are hours of jobs that held their GPUs before or after they were the one that answers.")
    return table
