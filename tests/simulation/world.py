"""The world of one schedule: time, cluster, database, controllers, users, faults, and what must always hold."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Protocol

from api.contract.job.token import parse_token
from controller.core.attempt import Attempt
from controller.core.outcomes import Outcome
from controller.core.plan import Plan as ServicePlan
from controller.core.plan import Revoke
from controller.lease import LeaseRecords
from controller.ports import Record, Store, Term
from controller.report import Pass
from tests.simulation import lanes
from tests.simulation.controller import SimController
from tests.simulation.database import MemoryDatabase, SimService
from tests.simulation.faults import FAULTS, FAULTS_WITHOUT_SLOTS
from tests.simulation.slurm import MODEL, Listener, SimJob, SimSlurm

SETTLING_SECONDS = 1200.0
"""Within this time after the last fault everything must be as wanted; the longest back-off is part of it."""
QUIET_AFTER, PLAIN_AFTER = 130.0, 20.0
"""Seconds after which the last fault is over for certain, and after which a job must have been seen in a listing."""
MOVES = ("scale", "scale", "config", "config", "stop", "start", "start", "delete")
FATES = ("accepted",) * 6 + ("killed after", "late", "doubled", "lost", "deferred", "unlabelled", "interrupted")


class ViolationError(BaseException):
    """An invariant does not hold. No handler of the project's may catch it."""


class Database(Protocol):
    """What a world needs of its database. The coroutines of store and lease end without ever waiting."""

    installation: str
    edits: int

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
    slots: bool = True
    """Whether engines need the slot of their replica. It must not hide what the other rules have to hold."""
    lanes: bool = False
    """Whether attempts are replaced in time, by one in the other lane of their replica."""

    @property
    def has_one_slot(self) -> bool:
        """Whether a slot keeps a second engine of a replica from running: with lanes there are two slots."""
        return self.slots and not self.lanes


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
        self.reached: Counter[str] = Counter()
        self.database_fails_until = self.folder_fails_until = self.files_late_until = self.files_garbled_until = 0.0
        self.calm = self.restored = False
        self.newest_epoch = 0
        self.opened_beside: set[str] = set()
        """Tokens of attempts that were opened in the other lane, with a reason."""
        self.handed_over: set[str] = set()
        """Tokens of attempts that another one took over from."""
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
        found = self.slurm.listener(host, port)
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

    def judge_plan(self, plan: ServicePlan) -> None:
        """Ready is only what has answered as itself."""
        for attempt in plan.attempts:
            if attempt.beside is not None and attempt.token not in self.opened_beside:
                self.opened_beside.add(attempt.token)
                self.reach("other lane opened")
            if attempt.outcome == Outcome.SUPERSEDED and attempt.token not in self.handed_over:
                self.handed_over.add(attempt.token)
                self.reach("handed over")
            if attempt.ready and attempt.token not in self.slurm.served:
                raise ViolationError(f"{attempt.token} is called ready, and has never served its model")
            if attempt.outcome == Outcome.REQUEUED and attempt.token not in self.slurm.requeued:
                raise ViolationError(f"{attempt.token} is called requeued, and its job never left its node")

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
        mine = [j for j in self.slurm.jobs.values() if self._is_ours(j)]
        # A requeued job has no dependency left; what keeps it from its GPU is its restart count.
        twins = Counter(j.name for j in mine if j.state == "RUNNING" and not j.restarts)
        by_token = Counter(j.name for j in mine if j.has_claimed)
        engines = [j for j in mine if j.has_engine and j.state != "SUSPENDED"]
        by_lane = Counter(map(self.slurm.place, engines))
        for name, count in twins.items():
            if count > 1:
                raise ViolationError(f"{count} jobs run at a time for one attempt: {name}")
        for what, counts in (("attempt", by_token), ("replica's lane", by_lane)):
            for name, count in counts.items():
                if count > 1:
                    raise ViolationError(f"{count} engines for one {what}: {name}")

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
        digests = {key: self.database.wanted_digest(key) for key in services}
        if any(a.digest != digests[a.service_id] for a in open_.values()):
            return "an outdated attempt"
        if any(a.gone_at is None and not a.open for a in attempts.values()):
            return "a closed attempt that is not gone"
        return None

    def _is_ours(self, job: SimJob) -> bool:
        token = parse_token(job.name)
        return not job.theirs and token is not None and token.installation == self.installation

    # --- driving

    def run(self) -> None:
        """Run the schedule: faults first, then calm, then everything must be as wanted."""
        with lanes.in_use(lambda: self.plan.lanes and not self.calm):
            self._run()

    def _run(self) -> None:
        self.user_action()
        left = self.plan.faults + self.plan.user_actions
        for step in range(self.plan.steps):
            if left and self.rng.random() < left / (self.plan.steps - step):
                left -= 1
                self.user_action() if left < self.plan.user_actions and left % 2 else self.fault(
                    self.rng.choice(FAULTS if self.plan.has_one_slot else FAULTS_WITHOUT_SLOTS)
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
        self.check()

    def fault(self, fault: Callable[[World], None]) -> None:
        """Let something go wrong."""
        self.reach(fault.__name__)
        fault(self)

    def _calm_down(self) -> None:
        """No more faults; those that last come to their end by themselves."""
        self.calm, self.calm_since = True, self.now
        for controller in self.controllers:
            controller.clock_offset = 0.0
        soon = self.now + QUIET_AFTER - PLAIN_AFTER
        self.slurm.listing_fault_until = min(self.slurm.listing_fault_until, soon)
        self.slurm.accounting_down_until = min(self.slurm.accounting_down_until, soon)
        for job in self.slurm.jobs.values():
            job.held = job.held and job.restarts > 0
        strangers = [j for j in self.slurm.jobs.values() if j.alive and not self._is_ours(j)]
        for job in strangers:
            self.slurm.end(job, "COMPLETED", self.now, code=0)

    def user_action(self) -> None:
        """Let somebody change something."""
        key = self.rng.choice(self.keys)
        service = self.database.services.get(key)
        if service is None:
            self.database.change(key, replicas=self.rng.choice((1, 2)))
            return
        kind = self.rng.choice(MOVES)
        self.reach(f"user: {kind}")
        if kind == "scale":
            self.database.change(key, replicas=self.rng.choice((0, 1, 2, 3)))
        elif kind == "delete":
            self.database.delete(key)
            self.keys[self.keys.index(key)] = f"{key}n"
        elif kind == "config":
            self.database.change(key, version=service.version + 1)
        else:
            self.database.change(key, running=kind == "start")
