"""The world of one schedule: time, cluster, database, controllers, users, faults, and what must always hold."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from functools import cache
from typing import Any, Protocol

from api.contract.job.token import parse_token
from api.contract.launch import NoRoomPolicy
from controller.core.attempt import Attempt
from controller.core.desired import Desired
from controller.core.evidence import CLOCKS_APART
from controller.core.outcomes import Outcome
from controller.core.plan import Plan as ServicePlan
from controller.core.plan import Revoke
from controller.lease import LeaseRecords
from controller.ports import Record, Store, Term
from controller.report import Pass
from tests.simulation import rolling
from tests.simulation.controller import LIMITS, SimController
from tests.simulation.database import MemoryDatabase, SimService
from tests.simulation.faults import FAULTS, FAULTS_WITHOUT_SLOTS
from tests.simulation.slurm import MODEL, TIME_LIMIT, Listener, SimJob, SimSlurm
from tests.simulation.traffic import Traffic

SETTLING_SECONDS = 1200.0
"""Within this time after the last fault everything must be as wanted; the longest back-off is part of it."""
SHORT = 48.0
"""Seconds that a job may run where attempts hand over."""
QUIET_AFTER, PLAIN_AFTER = 130.0, 20.0
"""Seconds after which the last fault is over for certain, and after which a job must have been seen in a listing."""
MOVES = ("scale", "scale", "config", "config", "back", "stop", "start", "start", "delete")
FATES = ("accepted",) * 6 + ("killed after", "late", "doubled", "lost", "deferred", "unlabelled", "interrupted")


class ViolationError(BaseException):
    """An invariant does not hold. No handler of the project's may catch it."""


class Database(Protocol):
    """What a world needs of its database. The coroutines of store and lease end without ever waiting."""

    installation: str
    edits: int
    surge: int
    no_room: NoRoomPolicy
    time_min: int | None

    @property
    def store(self) -> Store: ...

    @property
    def lease_records(self) -> LeaseRecords: ...

    @property
    def epoch(self) -> int: ...

    @property
    def services(self) -> Mapping[str, SimService]: ...

    @property
    def attempts(self) -> Mapping[str, Attempt]: ...

    def attempt(self, token: str) -> Attempt | None: ...

    @property
    def position(self) -> int: ...

    @property
    def routed(self) -> tuple[str, ...]: ...

    def sign(self, gateway: str, applied: int) -> None: ...

    def wanted_digest(self, key: str) -> str: ...

    def change(self, key: str, **values: Any) -> None: ...

    def delete(self, key: str) -> None: ...

    def backup(self) -> Any: ...

    def restore(self, backup: Any) -> None: ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class Plan:
    """How one schedule is drawn."""

    seed: int
    services: int = 1
    controllers: int = 1
    faults: int = 6
    user_actions: int = 3
    steps: int = 250
    gpus: int = 0
    """That all services together may hold; each replica asks for one. 0: any number."""
    jobs: int = 0
    """That may run at a time, by a limit of Slurm's on those of their owner. 0: any number."""
    no_room: NoRoomPolicy = "gap"
    """Of every service."""
    slots: bool = True
    """Whether engines need the slot of their replica. It must not hide what the other rules have to hold."""
    lanes: bool = False
    """Whether jobs have a time limit that is short, so that attempts hand over, and engines something to answer."""
    surge: int = 1
    """Of every service."""
    pauses: bool = False
    """Whether who changes a service may hold the change back, until another change or the end of all faults."""


class World:
    """One schedule."""

    def __init__(self, plan: Plan, *, trace: bool = False, database: Database | None = None) -> None:
        self.plan = plan
        self.trace: list[str] = []
        self._tracing = trace
        self._shown: dict[int, tuple[object, ...]] = {}
        self.rng = random.Random(plan.seed)
        self.now = 1000.0
        self.slurm = SimSlurm(self.rng, has_accounting=self.rng.random() < 0.8, has_slots=plan.slots)
        self.database = database or MemoryDatabase()
        self.installation = self.database.installation
        self.database.surge, self.database.no_room, self.slurm.most_running = plan.surge, plan.no_room, plan.jobs
        self.traffic = Traffic(random.Random(plan.seed), self.slurm, self.reach)
        if plan.lanes:
            self.slurm.time_limit = SHORT
        self.reached: Counter[str] = Counter()
        self.database_fails_until = self.folder_fails_until = self.files_late_until = self.files_garbled_until = 0.0
        self.calm = self.restored = False
        self.newest_epoch = 0
        self.opened: set[str] = set()
        """Tokens of all attempts."""
        self.opened_beside: set[str] = set()
        """Tokens of attempts that were opened in the other lane, with a reason."""
        self.draining: set[str] = set()
        """Tokens of attempts that were seen to drain."""
        self.handed_over: set[str] = set()
        """Tokens of attempts that another one took over from."""
        self.ended_idle: set[str] = set()
        """Those of them that were ended because nothing was in flight."""
        self.next_fate: str | None = None
        """What becomes of the next sbatch, if it is not to be drawn."""
        self.calm_since = float("inf")
        self.settled_after: float | None = None
        """Seconds from the last fault until everything was as wanted."""
        self._later: list[tuple[float, Callable[[], None]]] = []
        self._ticks = 0
        self.keys = [f"s{n + 1}" for n in range(plan.services)]
        self.controllers = [SimController(self, name) for name in "ABC"[: plan.controllers]]

    # --- what adapters ask

    def tick(self) -> int:
        """Return a number for this moment, by which what happens at the same time can be ordered."""
        self._ticks += 1
        return self._ticks

    def reach(self, what: str) -> None:
        """Count that a dangerous place was come to."""
        self.reached[what] += 1
        if self._tracing and not what.startswith("step"):
            self.trace.append(f"{self.now:9.2f} {what}")

    def show(self, record: Record, plan: ServicePlan) -> None:
        """Add a plan to the trace."""
        if not self._tracing:
            return
        known = {a.token: a for a in record.attempts}
        for attempt in plan.attempts:
            old = known.get(attempt.token)
            names = [f.name for f in fields(attempt)]
            changed = {n: v for n in names if (v := getattr(attempt, n)) != getattr(old, n, None)}
            self.trace.append(f"{self.now:9.2f}   {attempt.token} {changed if old else 'opened'}")
        self.trace += [f"{self.now:9.2f}   {action}" for action in plan.actions]

    def close(self) -> None:
        """Drop what is under way."""
        for controller in self.controllers:
            controller.crash(float("inf"))
        self.database.close()

    def check_database(self) -> None:
        """Raise as a busy or unreachable database does."""
        if self.now < self.database_fails_until:
            raise OSError("database is locked")

    def maybe_fail_the_commit(self) -> None:
        """Raise, and nothing was done."""
        if not self.calm and self.rng.random() < 0.02:
            self.reach("commit failed")
            raise OSError("disk I/O error")

    def maybe_lose_the_answer(self) -> None:
        """Raise although the commit was done."""
        if not self.calm and self.rng.random() < 0.02:
            self.reach("commit's answer lost")
            raise OSError("connection lost after commit")

    def check_folder(self) -> None:
        """Raise as a full or absent shared folder does."""
        if self.now < self.folder_fails_until:
            raise OSError("No space left on device")

    def fate_of_sbatch(self) -> str:
        """Draw what becomes of an sbatch."""
        fate, self.next_fate = self.next_fate, None
        if fate is None and self.now < self.slurm.silent_until:
            fate = self.rng.choice(("late", "lost"))
        elif fate is None:
            fate = "accepted" if self.calm else self.rng.choice(FATES)
        self.reach(f"sbatch {fate}")
        return fate

    def listener(self, host: str | None, port: int | None) -> Listener | None:
        """Return what a probe finds behind an address."""
        found = self.slurm.listener(host, port, self.now)
        if found is not None and found.healthy and found.model != MODEL:
            self.reach("a false engine called itself well")
        return found

    def restore(self, backup: Any) -> None:
        """Put an older state of the database back, as one does it: with the programs stopped."""
        if not self.calm:
            for controller in self.controllers:
                controller.crash(self.now + 1.0)
            self.reach("database put back")
            self.restored = True
            self.slurm.listing_fault_until = 0.0
            self.slurm.end_orphans()  # of an engine that neither Slurm nor the database knows nobody can tell
            self.database.restore(backup)
            rows = self.database.attempts.values()
            self.opened = {a.token for a in rows}  # the numbers after these are given anew
            self.draining = {a.token for a in rows if a.draining_since is not None}
            self.handed_over = {a.token for a in rows if a.outcome == Outcome.SUPERSEDED}
            self.handed_over |= {a.token for a in rows if a.outcome == Outcome.SCALED_DOWN and rolling.was_ready(a)}
            self.ended_idle = set()
            self.traffic.begin_anew()

    def later(self, seconds: float, work: Callable[[], None]) -> None:
        """Have something happen later."""
        self._later.append((self.now + seconds, work))

    async def no_hours(self, *_: float) -> Mapping[str, float]:
        """Nobody counts GPU-hours here."""
        return {}

    # --- what must always hold

    def judge_cancel(self, job: SimJob) -> None:
        """A cancel is right only for what is ours, and closed or not the holder of its claim."""
        self.reach("cancel")
        if job.theirs:
            raise ViolationError(f"cancelled {job.name}, job {job.job_id}, which is not ours")
        attempt = self.database.attempt(job.name)
        if attempt is None:
            raise ViolationError(f"cancelled {job.name}, of which the database has never heard")
        claim = self.slurm.folder(job.name).claim
        if attempt.open and claim == job.job_id:
            raise ViolationError(f"cancelled job {job.job_id}, which holds the claim of the open attempt {job.name}")

    def judge_revoke(self, token: str) -> None:
        """Once all is quiet, nobody takes the claim from a job that has been waiting in plain sight."""
        attempt = self.database.attempt(token)
        if attempt is None or not attempt.open or self.now < self.calm_since + QUIET_AFTER:
            return
        waiting = [j for j in self.slurm.jobs.values() if j.name == token and j.state == "PENDING" and not j.theirs]
        if any(self.now - j.submitted_at > PLAIN_AFTER for j in waiting):
            raise ViolationError(f"revoked the claim of {token}, whose job waits in the queue")

    def judge_ceiling(self) -> None:
        """No more GPUs are held than the site allows."""
        held = sum(a.gpus for a in self.database.attempts.values() if a.gone_at is None)
        if 0 < self.plan.gpus < held:
            raise ViolationError(f"{held} GPUs are held of {self.plan.gpus}")

    def judge_plan(self, record: Record, plan: ServicePlan) -> None:
        """Ready is only what has answered as itself."""
        rows = {**self.database.attempts, **{a.token: a for a in plan.attempts}} if plan.attempts else {}
        mine = [a for a in rows.values() if a.service_id == record.desired.service_id]
        before = [a for a in mine if a.token in self.opened]
        for attempt in plan.attempts:
            if attempt.token not in self.opened:
                self._judge_opening(attempt)
            self._judge_hand_over(attempt, before, record.desired)
            if attempt.ready and attempt.token not in self.slurm.served:
                raise ViolationError(f"{attempt.token} is called ready, and has never served its model")
            if attempt.outcome == Outcome.REQUEUED and attempt.token not in self.slurm.requeued:
                raise ViolationError(f"{attempt.token} is called requeued, and its job never left its node")
        if plan.attempts:
            wrong = rolling.violation(record, plan, mine, self.plan)
            if wrong is not None:
                raise ViolationError(wrong)

    def _judge_opening(self, attempt: Attempt) -> None:
        """Without a reason an attempt opens in the lane of the one before."""
        self.opened.add(attempt.token)
        if attempt.beside is not None:
            self.opened_beside.add(attempt.token)
            self.reach(f"other lane opened: {attempt.beside}")
            return
        replica = attempt.token.rpartition("-")[0]
        before = self.database.attempt(f"{replica}-{attempt.incarnation - 1}")
        if before is not None and before.lane != attempt.lane:
            raise ViolationError(f"{attempt.token} changed to lane {attempt.lane}, without a reason")

    def _judge_hand_over(self, attempt: Attempt, mine: list[Attempt], desired: Desired) -> None:
        """What drains has another ahead, or is to go; it is preferred again only once neither is so."""
        others, is_told = rolling.ahead_of(attempt, mine, desired.digest), self._is_told(attempt)
        is_surplus = attempt.replica >= desired.replicas
        if attempt.draining_since is not None and attempt.token not in self.draining:
            self.draining.add(attempt.token)
            self.reach("drains" if not is_surplus else "drains as surplus")
            may_go = is_told or is_surplus or rolling.may_end_before(attempt, desired, self.plan)
            may_go = may_go or rolling.may_make_room(attempt, mine, desired)
            if not may_go and not any(a.ready for a in others):
                raise ViolationError(f"{attempt.token} drains, and none that is ready stands beside it")
        if attempt.open and attempt.draining_since is None and attempt.token in self.draining:
            self.draining.remove(attempt.token)
            self.reach("preferred again")
            staying = [a.token for a in others if not self._is_told(a)]
            if staying:
                raise ViolationError(f"{attempt.token} is preferred again, and {staying} stand ahead of it")
        if attempt.token in self.handed_over:
            return
        if attempt.outcome == Outcome.SUPERSEDED:
            self._judge_end(attempt)
            stands = any(a.serves for a in (rolling.beside(attempt, mine) if is_told else others))
            if not stands and not rolling.ends_with_its_successor(attempt, mine, desired, self.plan):
                raise ViolationError(f"{attempt.token} was handed over, and none that is ready stands for it")
        elif attempt.outcome in (Outcome.SCALED_DOWN, Outcome.MADE_ROOM) and rolling.was_ready(attempt):
            self._judge_end(attempt)

    def _is_told(self, attempt: Attempt) -> bool:
        """Whether somebody else has told its job to end, heard of or not."""
        return self.slurm.folder(attempt.token).told_to_end_at is not None

    def _judge_end(self, attempt: Attempt) -> None:
        """It had time to finish what it had. Where clocks jump, times are nobody's."""
        had = self.now - (attempt.draining_since or self.now)
        is_cut = self.traffic.in_flight(attempt.token, self.now)
        words = {Outcome.SUPERSEDED: "handed over", Outcome.MADE_ROOM: "ended to make room"}
        what = words.get(Outcome(attempt.outcome or ""), "scaled down")
        self.reach(what if not is_cut else f"{what}, and cut")
        self.handed_over.add(attempt.token)
        if had >= LIMITS.drain_most - CLOCKS_APART or self.reached["clock_jumps"]:
            return
        self.reach(f"{what} before its time was over")
        self.ended_idle.add(attempt.token)
        if is_cut:
            raise ViolationError(f"{attempt.token} was ended {had:.0f} s after it began to drain, with work in flight")
        if routing := self.traffic.who_routes_to(attempt, self.now):
            raise ViolationError(f"{attempt.token} was ended, and {', '.join(routing)} still routes to it")

    def judge_requests(self, asked: list[str]) -> None:
        """None gets to an engine that was taken for idle and ended. Where clocks jump, times are nobody's."""
        lost = self.ended_idle.intersection(asked)
        if lost and not self.reached["clock_jumps"]:
            raise ViolationError(f"a request gets to {lost}, which was ended because nothing was in flight")

    def judge_turned_away(self) -> None:
        """A gateway that has lived ever since an attempt drains meets its closed door only after a long while."""
        turned_away, self.traffic.turned_away = self.traffic.turned_away, []
        for gateway, token in turned_away:
            attempt, told_at = self.database.attempt(token), self.slurm.folder(token).told_at
            if attempt is None or attempt.draining_since is None or told_at is None or self._is_told(attempt):
                continue
            had = told_at - attempt.draining_since
            has_lived = gateway.has_lived_since(attempt.draining_since, self.now)
            if has_lived and had < LIMITS.drain_hears - CLOCKS_APART and not self.reached["clock_jumps"]:
                raise ViolationError(f"{gateway.id} met the door of {token}, shut {had:.0f} s after it began to drain")

    def judge_told(self, done: Pass) -> None:
        """What says that somebody has told it to end gets no new requests, and is not judged by its health."""
        attempts = {a.token: a for a in (*done.seen.attempts, *done.plan.attempts)}
        open_before = {a.token for a in done.seen.attempts if a.open}
        for attempt in attempts.values():
            files = done.seen.files.get(attempt.token)
            if files is None or files.told_to_end_at is None or attempt.token not in open_before:
                continue
            self.reach("told to end")
            has_answered = attempt.open and attempt.ready_at is not None
            if has_answered and attempt.draining_since is None and attempt.replica < done.record.desired.replicas:
                raise ViolationError(f"{attempt.token} is told to end, and gets new requests")
            if attempt.outcome == Outcome.UNHEALTHY:
                raise ViolationError(f"{attempt.token} is ended for its health, while it finishes what it has")

    def judge_absence(self, done: Pass, listed: int, returned: Mapping[str, int]) -> None:
        """Absence counts only in a listing that was made after our last sbatch about that thing had returned."""
        snapshot = done.seen.snapshot
        assert snapshot is not None
        missed = {a.token for a in done.plan.attempts if a.absent_since == snapshot.began_at}
        missed |= {action.token for action in done.plan.actions if isinstance(action, Revoke)}
        for token in (missed - snapshot.jobs.keys()) | snapshot.in_doubt:
            if returned.get(token, 0) > listed:
                raise ViolationError(f"{token} is missed in a listing that was made before its sbatch had returned")

    def _show_jobs(self) -> None:
        for job in self.slurm.jobs.values():
            looks = (job.name, job.state, job.stage, job.restarts)
            if self._shown.get(job.job_id) != looks:
                self._shown[job.job_id] = looks
                self.trace.append(f"{self.now:9.2f}      job {job.job_id} {looks}")

    def judge_write(self, term: Term) -> None:
        """Only the leader writes."""
        epoch = self.database.epoch
        if term.epoch != epoch:
            raise ViolationError(f"the deposed leader of term {term.epoch} wrote in term {epoch}")

    def check(self) -> None:
        """Check the invariants of every moment."""
        if self._tracing:
            self._show_jobs()
        at_work = [j for j in self.slurm.jobs.values() if (j.state == "RUNNING" or j.has_claimed) and self._is_ours(j)]
        if len(at_work) < 2:
            return
        engines = [j for j in at_work if j.has_engine and j.state != "SUSPENDED"]
        # A requeued job has no dependency left; what keeps it from its GPU is its restart count.
        dependent = [j for j in at_work if j.state == "RUNNING" and not j.restarts]
        for what, names in (
            ("jobs run at a time for one attempt", [j.name for j in dependent]),
            ("engines for one attempt", [j.name for j in at_work if j.has_claimed]),
            ("engines for one replica's lane", [self.slurm.place(j) for j in engines]),
        ):
            if len(set(names)) < len(names):
                name, count = Counter(names).most_common(1)[0]
                raise ViolationError(f"{count} {what}: {name}")
        self._judge_lanes(engines)

    def _judge_lanes(self, engines: list[SimJob]) -> None:
        """Of two engines of a replica the younger one was opened beside the other, with a reason."""
        by_replica: dict[str, list[SimJob]] = {}
        for job in engines:
            by_replica.setdefault(job.name.rpartition("-")[0], []).append(job)
        for replica, jobs in by_replica.items():
            youngest = max(jobs, key=lambda j: int(j.name.rpartition("-")[2]))
            if len(jobs) > 1 and youngest.name not in self.opened_beside:
                raise ViolationError(f"{len(jobs)} engines for one replica: {replica}, without a reason")

    def unsettled(self) -> str | None:
        """Say what is not yet as it should be; `None` once all is."""
        alive = [j for j in self.slurm.jobs.values() if j.alive and self._is_ours(j)]
        if self.restored:
            # Jobs that a restored database has never heard of are left alone, and block their replica: people decide.
            for job in [j for j in alive if j.name not in self.database.attempts]:
                self.slurm.cancel(job, self.now)
        services, attempts = self.database.services, self.database.attempts
        wanted = {(s.id, r) for s in services.values() if s.running and not s.deleted for r in range(s.replicas)}
        open_ = {(a.service_id, a.replica): a for a in attempts.values() if a.open}
        if len(open_) < sum(a.open for a in attempts.values()):
            return "a replica that is handed over"
        missing = wanted - open_.keys()
        if not open_.keys() <= wanted or (missing and len(open_) != self.plan.gpus):
            return f"open attempts {sorted(open_)} for wanted {sorted(wanted)}"
        if any(not a.ready for a in open_.values()):
            return f"not ready: {[a.token for a in open_.values() if not a.ready]}"
        if sorted(j.name for j in alive) != sorted(a.token for a in open_.values()):
            return f"jobs {[(j.job_id, j.name, j.state) for j in alive]} for {[a.token for a in open_.values()]}"
        if shut := [a.token for a in open_.values() if self.slurm.folder(a.token).told_at is not None]:
            return f"the doors of {shut} let nobody in"
        digests = {key: self.database.wanted_digest(key) for key in services}
        if any(a.digest != digests[a.service_id] for a in open_.values()):
            return "an outdated attempt"
        if any(a.gone_at is None and not a.open for a in attempts.values()):
            return "a closed attempt that is not gone"
        return None

    def _is_ours(self, job: SimJob) -> bool:
        return not job.theirs and _installation(job.name) == self.installation

    # --- driving

    def run(self) -> None:
        """Run the schedule: faults first, then calm, then everything must be as wanted."""
        self.user_action()
        left = self.plan.faults + self.plan.user_actions
        for step in range(self.plan.steps):
            if left and self.rng.random() < left / (self.plan.steps - step):
                left -= 1
                self.user_action() if left < self.plan.user_actions and left % 2 else self.fault(
                    self.rng.choice(FAULTS if self.plan.slots else FAULTS_WITHOUT_SLOTS)
                )
            self.move()
        self.settle()

    def settle(self) -> None:
        """End all faults; soon everything must be as wanted."""
        self._calm_down()
        began = self.now
        while self.now < began + SETTLING_SECONDS:
            self.move()
            if self.rng.random() < 0.05 and self.unsettled() is None:
                self.settled_after = self.now - began
                self.reached["slot lost"] = self.slurm.slots_lost
                return
        raise ViolationError(f"not as wanted {SETTLING_SECONDS:g} s after the last fault: {self.unsettled()}")

    def move(self) -> None:
        """Let time pass, or one controller take one step."""
        ready = [c for c in self.controllers if c.is_free_to_run()]
        if ready and self.rng.random() < 0.85:
            self.rng.choice(ready).step()
        else:
            self.now += self.rng.choice((0.05, 0.5, 1.0, 2.0)) if not self.calm else self.rng.choice((0.5, 1.0, 2.0))
            for item in [i for i in self._later if i[0] <= self.now]:
                self._later.remove(item)
                item[1]()
            self.slurm.advance(self.now)
            if self.plan.lanes:
                can_be_asked = self.now >= self.database_fails_until
                asked = self.traffic.advance(self.database, self.now, can_be_asked=can_be_asked)
                self.judge_requests(asked)
                self.judge_turned_away()
        self.check()

    def fault(self, fault: Callable[[World], None]) -> None:
        """Let something go wrong."""
        self.reach(fault.__name__)
        fault(self)

    def _held_back(self) -> dict[str, bool]:
        """Return whether a change is held back; nothing where nobody ever does."""
        if not self.plan.pauses:
            return {}
        paused = self.rng.random() < 0.5
        self.reach("user: pause" if paused else "user: resume")
        return {"paused": paused}

    def _calm_down(self) -> None:
        """No more faults; those that last come to their end by themselves, and people have all changes go on."""
        self.calm, self.calm_since = True, self.now
        for key in [service.id for service in self.database.services.values() if service.paused]:
            self.database.change(key, paused=False)
        for controller in self.controllers:
            controller.clock_offset = 0.0
        soon = self.now + QUIET_AFTER - PLAIN_AFTER
        self.slurm.listing_fault_until = min(self.slurm.listing_fault_until, soon)
        self.slurm.accounting_down_until = min(self.slurm.accounting_down_until, soon)
        self.slurm.time_limit, self.slurm.most_running = TIME_LIMIT, 0  # an administrator raises both
        self.traffic.trouble = 0.0
        for job in self.slurm.jobs.values():
            job.time_limit = TIME_LIMIT  # an administrator extends it
            job.held = job.held and job.restarts > 0
        strangers = [j for j in self.slurm.jobs.values() if j.alive and not self._is_ours(j)]
        for job in strangers:
            self.slurm.end(job, "COMPLETED", self.now, code=0)

    def user_action(self) -> None:
        """Let somebody change something."""
        key = self.rng.choice(self.keys)
        service = self.database.services.get(key)
        if service is None:
            is_tight = self.plan.gpus or self.plan.jobs
            self.database.change(key, replicas=self.rng.choice((2, 3) if is_tight else (1, 2)))
            return
        kind = self.rng.choice(MOVES)
        self.reach(f"user: {kind}")
        if kind == "scale":
            self.database.change(key, replicas=self.rng.choice((0, 1, 2, 3)))
        elif kind == "delete":
            self.database.delete(key)
            self.keys[self.keys.index(key)] = f"{key}n"
        elif kind in ("config", "back"):
            version = max(1, service.version + (1 if kind == "config" else -1))
            self.database.change(key, version=version, **self._held_back())
        else:
            self.database.change(key, running=kind == "start")


@cache
def _installation(name: str) -> str | None:
    """Return whose job this is by its name, if it is of any installation."""
    token = parse_token(name)
    return None if token is None else token.installation
