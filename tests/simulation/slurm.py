"""A simulated Slurm with its nodes: it does what real ones were seen to do, and worse, but never what they can't."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from api.contract.job.words import Lane
from controller.core.jobs import Job, JobPhase, Maintenance
from controller.slurm.reasons import KEPT_BACK, meaning
from controller.slurm.states import end_of

HELD = "JobHeldAdmin"
MAINTENANCE = "ReqNodeNotAvail, Reserved for maintenance"
NO_MORE_JOBS = "QOSMaxJobsPerUserLimit"
MIN_JOB_AGE = 30.0
TIME_LIMIT = 86_400.0
QUEUE_WAITS = (0.0,) * 6 + (20.0, 90.0)
PHASES = {
    "PENDING": JobPhase.PENDING,
    "RUNNING": JobPhase.RUNNING,
    "SUSPENDED": JobPhase.SUSPENDED,
    "COMPLETING": JobPhase.COMPLETING,
}
DRAINS = (0.0, 0.5, 3.0, 20.0)
"""How long an engine may take to end that is told to."""
EPILOGS = (0.0, 0.0, 0.0, 2.0, 30.0, 400.0)
"""How long a node may take over a job whose script has ended."""
NODES = {f"n{number}": f"10.0.0.{number + 1}" for number in range(3)}
MODEL = "m"
"""What every service of the simulation is to serve."""
FIRST_PORT = 20000
FINISHES = 25.0
"""How long an engine that somebody has told to end may finish what it has, while nobody new gets through its door."""
HANDOVER, LOOKS = 12.0, 10.0
"""How long a new engine gives the one that had its slot, and how long that one takes at most to be ended."""


@dataclass(frozen=True)
class SimMaintenance:
    """A reservation in which no job runs on some nodes."""

    begins_at: float
    ends_at: float
    nodes: Sequence[str] = tuple(NODES)

    def meets(self, job: SimJob, now: float) -> bool:
        """Whether a job that began now would reach into it."""
        return self.begins_at < now + job.time_limit and now < self.ends_at

    def seen(self) -> Maintenance:
        """Return it as scontrol shows it."""
        return Maintenance(begins_at=self.begins_at, ends_at=self.ends_at)


@dataclass(frozen=True)
class Listener:
    """What a probe finds behind an address."""

    healthy: bool
    secret: str
    """The token whose secret it knows."""
    model: str
    is_quiet: bool
    """Whether nothing is in flight there."""


@dataclass
class SimJob:
    """One job as slurmctld and its node know it."""

    job_id: int
    name: str
    submitted_at: float
    state: str = "PENDING"
    time_limit: float = TIME_LIMIT
    timeout: str = "TIMEOUT"
    """What Slurm calls its end when its time is over."""
    starts_after: float = 0.0
    """Until then no node is free for it."""
    singleton: bool = True
    """Whether its sbatch asked to be held back while another job of its name may run."""
    held: bool = False
    restarts: int = 0
    node: str | None = None
    started_at: float | None = None
    ended_at: float | None = None
    exit_code: int | None = None
    stage: str = "none"
    """What its script has come to: none, claimed, slot, starting, serving, ready, over."""
    slot_at: float = 0.0
    """Until then it gives the engine that had its slot the time to end."""
    lives_until: float = 0.0
    """For Slurm it is over, and it lives on until then."""
    is_orphan: bool = False
    """Its engine lives without wrapper and guard."""
    taken_for_queued_until: float = 0.0
    """It runs, and slurmctld, which lost that state, believes until then that it waits."""
    ends_at: float | None = None
    """When what ends it has come to its end: until then it is COMPLETING, and its engine may go on. Then its record
    is there, and this is when its node has done with it: it is COMPLETING until then."""
    ends_as: str = ""
    hangs: bool = False
    """Its engine runs and does not answer."""
    theirs: bool = False
    """Whether it is a stranger's, or another installation's."""
    lies: bool = False
    """Its engine calls itself well, and serves no model."""
    model: str = MODEL
    port: int | None = None
    busy_until: float = 0.0
    """When all is answered that it has been asked."""

    @property
    def alive(self) -> bool:
        """Whether it is queued or on a node."""
        return self.state in PHASES

    @property
    def has_engine(self) -> bool:
        """Whether its engine holds a GPU."""
        return self._is_on_a_node and self.stage in ("starting", "serving", "ready")

    @property
    def has_claimed(self) -> bool:
        """Whether it is at work under its claim, with an engine or about to start one."""
        return self.has_engine or (self._is_on_a_node and self.stage in ("claimed", "slot"))

    @property
    def _is_on_a_node(self) -> bool:
        return self.state in ("RUNNING", "SUSPENDED", "COMPLETING") or self.lives_until > 0

    @property
    def gives_signs(self) -> bool:
        """Whether its wrapper lives and is not stopped."""
        return self.has_claimed and self.state != "SUSPENDED" and not self.is_orphan

    def seen(self, reason: str = "") -> Job:
        """Return it as a listing shows it, which tells no exit code."""
        if self.taken_for_queued_until:
            return Job(job_id=self.job_id, token=self.name, phase=JobPhase.PENDING, state="PENDING")
        lasts = self.state in ("RUNNING", "SUSPENDED") and self.started_at is not None
        return Job(
            job_id=self.job_id,
            token=self.name,
            phase=PHASES.get(self.state, JobPhase.ENDED),
            state=self.state,
            end=end_of(self.state),
            reason=reason,
            is_kept_back=reason == KEPT_BACK,
            is_held=reason == HELD,
            lacks_room=meaning(reason).lacks_room,
            awaits_maintenance=reason == MAINTENANCE,
            time_limit=self.time_limit if self.state == "PENDING" else None,
            node=self.node,
            started_at=self.started_at,
            ends_at=self.started_at + self.time_limit if lasts and self.started_at is not None else None,
        )

    def accounted(self) -> Job:
        """Return it as accounting knows it."""
        return replace(self.seen(), ends_at=None, exit_code=self.exit_code)


@dataclass
class JobFolder:
    """What a job has written; the controller may see it late."""

    claim: int | None = None
    """The job's id, or -1: revoked."""
    claim_at: float = 0.0
    step: str | None = None
    port: int | None = None
    exit: tuple[int, str] | None = None
    written_at: float = 0.0
    lane: str = "main"
    """Where its attempt stands beside another of its replica."""
    alone: bool = False
    """Whether nothing in the other lane may live beside it."""
    told_to_end_at: float | None = None
    """When its wrapper was told to end, and said so."""
    signed_at: float | None = None
    """When its wrapper last gave a sign of life."""
    told_at: float | None = None
    """When its door was told to let nobody new in; `None`: it was not, or that was taken back."""


@dataclass
class Slot:
    """Who has the right to a replica's engine."""

    job: SimJob | None
    """`None`: it was given back."""
    since: float


@dataclass
class SimSlurm:
    """slurmctld, slurmdbd, nodes and the shared folder."""

    rng: random.Random
    jobs: dict[int, SimJob] = field(default_factory=dict)
    folders: defaultdict[str, JobFolder] = field(default_factory=lambda: defaultdict(JobFolder))
    accounting: dict[int, tuple[float, SimJob]] = field(default_factory=dict)
    """Id -> when the row can first be seen, and the row."""
    next_id: int = 1
    silent_until: float = 0.0
    accounting_down_until: float = 0.0
    listing_fault: str = ""
    listing_fault_until: float = 0.0
    underway: list[tuple[float, str, bool]] = field(default_factory=list)
    """Requests that slurmctld will carry out although their sbatch has given up: when, the name, and singleton."""
    has_accounting: bool = True
    has_slots: bool = True
    wrappers_sign: bool = True
    """Whether wrappers give signs of life; those of older releases do not."""
    engines_prove_themselves: bool = True
    """Whether what an engine answers tells whose it is."""
    time_limit: float = TIME_LIMIT
    """Of the jobs that are submitted."""
    most_running: int = 0
    """Jobs of ours that may run at a time. 0: any number."""
    queue_waits: tuple[float, ...] = QUEUE_WAITS
    drains: tuple[float, ...] = DRAINS
    epilogs: tuple[float, ...] = EPILOGS
    slow_until: float = 0.0
    """Until then no engine comes to serve."""
    slots: dict[str, Slot] = field(default_factory=dict)
    """By replica and lane."""
    slots_lost: int = 0
    blind_until: float = 0.0
    """Until then nodes don't see RUN_DIR: what starts there can't claim."""
    requeued: set[str] = field(default_factory=set)
    """Tokens of which a job was put back into the queue, or taken for queued, after it had begun."""
    maintenances: list[SimMaintenance] = field(default_factory=list)
    leaving: set[str] = field(default_factory=set)
    """Nodes that are being taken out of service: no job starts there."""
    excluded: dict[str, frozenset[str]] = field(default_factory=dict)
    """By token: nodes that its job is kept off."""
    sick: str = ""
    """A node on which no engine comes to serve, and which is always the first to be free."""
    served: set[str] = field(default_factory=set)
    """Tokens whose engine has ever been ready with the right model."""

    # --- what the commands do

    def create(self, name: str, now: float, *, singleton: bool = True) -> int:
        """Make a job, as sbatch asks."""
        job_id = self.next_id
        self.next_id += 1
        self.jobs[job_id] = SimJob(
            job_id=job_id,
            name=name,
            submitted_at=now,
            time_limit=self.time_limit,
            starts_after=now + self.rng.choice(self.queue_waits),
            singleton=singleton,
        )
        return job_id

    def exclude(self, token: str, nodes: Iterable[str]) -> None:
        """Keep the jobs of a token off some nodes, as sbatch asks; not off all of them: that it would refuse."""
        self.excluded[token] = frozenset(nodes)

    def listing(self, now: float) -> list[SimJob]:
        """Return what squeue prints, which may be a lie."""
        shown = [j for j in self.jobs.values() if j.alive or now - (j.ended_at or now) < MIN_JOB_AGE]
        if now < self.listing_fault_until:
            return [] if self.listing_fault == "empty" else [j for j in shown if j.job_id % 2]
        return shown

    def ended(self, job_id: int, now: float) -> SimJob | None:
        """Return what sacct knows of a job."""
        visible_at, row = self.accounting.get(job_id, (0.0, None))
        return row if row is not None and now >= visible_at else None

    def cancel(self, job: SimJob, now: float) -> None:
        """Ask a job to end. One that is taken for queued is called cancelled without asking its node."""
        if job.taken_for_queued_until:
            stage, job.lives_until, job.taken_for_queued_until = job.stage, job.taken_for_queued_until, 0.0
            self.end(job, "CANCELLED", now, code=0)
            job.stage = stage
        elif job.state == "PENDING":
            self.end(job, "CANCELLED", now, code=0)
        else:
            self.terminate(job, "CANCELLED", now)

    def shorten(self, name: str, minutes: int) -> bool:
        """Set the time limit of the jobs of a name; return whether there is one."""
        found = [job for job in self.jobs.values() if job.name == name and job.alive]
        for job in found:
            job.time_limit = minutes * 60.0
        return bool(found)

    def terminate(self, job: SimJob, state: str, now: float) -> None:
        """Send TERM, later KILL: from now on it is COMPLETING, and while it is, singleton holds no twin of it back."""
        if job.alive and job.ends_at is None:
            self.tell_to_end(job, now)
            job.state, job.ends_as = "COMPLETING", state
            job.ends_at = now + self.rng.choice(self.drains)

    def tell_to_end(self, job: SimJob, now: float) -> None:
        """Have its wrapper hear a TERM: it says so, closes its door, and lets its engine finish what it has."""
        folder = self.folder(job.name)
        if job.gives_signs and self.wrappers_sign and folder.told_to_end_at is None:
            folder.told_to_end_at = folder.written_at = now

    def preempt(self, job: SimJob, now: float, grace: float) -> None:
        """Cut its time for another job. Its wrapper hears of that only where the site has it told (squeue tells)."""
        if job.state == "RUNNING" and job.started_at is not None:
            job.time_limit, job.timeout = min(job.time_limit, now - job.started_at + grace), "PREEMPTED"

    def end(self, job: SimJob, state: str, now: float, code: int, reason: str | None = None) -> None:
        """End a job; its wrapper may leave a record."""
        if reason is not None:
            self._tell(job, now, code, reason)
        job.state, job.ended_at, job.exit_code, job.stage = state, now, code, "over"
        if self.has_accounting:
            self.accounting[job.job_id] = (now + self.rng.choice((0.1, 0.1, 2.0, 6.0)), replace(job))

    def _tell(self, job: SimJob, now: float, code: int, reason: str) -> None:
        if job.stage not in ("none", "begun", "over"):
            folder = self.folder(job.name)
            folder.exit, folder.written_at = (code, reason), now
            self._give_back(job, now)

    def _leave(self, job: SimJob, now: float) -> None:
        """Its engine and its script have ended. Its node has its epilog to run, and may take long over it."""
        if job.stage != "over":
            self._tell(job, now, 143, "Terminated")
            job.stage, job.ends_at = "over", now + self.rng.choice(self.epilogs)
        if job.ends_at is not None and now >= job.ends_at:
            self.end(job, job.ends_as, now, code=143)

    def place(self, job: SimJob) -> str:
        """Name the lane of the replica that a job is for: where its slot is."""
        return _place(job, self.folder(job.name).lane)

    def _others(self, job: SimJob) -> list[str]:
        """Name the lanes that nothing may live in beside a job."""
        folder = self.folder(job.name)
        return [_place(job, lane) for lane in Lane if folder.alone and lane != folder.lane]

    def folder(self, token: str) -> JobFolder:
        """Return an attempt's folder."""
        return self.folders[token]

    # --- what goes on by itself

    def advance(self, now: float) -> None:
        """Let everything that is due happen."""
        for request in [u for u in self.underway if u[0] <= now and now >= self.silent_until]:
            self.underway.remove(request)
            self.create(request[1], now, singleton=request[2])
        for job in list(self.jobs.values()):
            self._look_at_slot(job, now)
            if job.gives_signs and self.wrappers_sign:
                self.folder(job.name).signed_at = now
            if job.state == "RUNNING" and now >= (job.started_at or now) + job.time_limit:
                self.terminate(job, job.timeout, now)
            if job.state == "RUNNING" and self._has_finished(job, now):
                self.end(job, "COMPLETED", now, code=143, reason="Terminated")
            if job.taken_for_queued_until and now >= job.taken_for_queued_until and job.alive:
                self.requeue(job, now)  # its node registers, and ends what slurmctld does not know to run
            elif job.ends_at is not None and now >= job.ends_at and job.alive:
                self._leave(job, now)
            elif job.alive and self.rng.random() < 0.5:
                self._progress(job, now)
            elif not job.alive and not job.lives_until and now - (job.ended_at or now) > MIN_JOB_AGE * 4:
                del self.jobs[job.job_id]

    def _has_finished(self, job: SimJob, now: float) -> bool:
        """Whether a job that was told to end, and that nobody ends, has had its time."""
        told = self.folder(job.name).told_to_end_at
        return job.gives_signs and told is not None and now >= told + FINISHES

    def _progress(self, job: SimJob, now: float) -> None:
        if job.state == "PENDING":
            self._start(job, now)
        elif job.state == "SUSPENDED":
            return
        elif job.stage == "none":
            self._begin_script(job, now)  # even of a job that is being ended: its TERM may come after
        elif job.state == "COMPLETING":
            return
        elif job.stage == "claimed":
            self._take_slot(job, now)
        elif job.stage == "slot" and now >= job.slot_at:
            for place in self._others(job):
                self._leave_slot(place, job, now)
            self._step(job, "starting", now)
        elif job.stage == "starting" and job.node == self.sick:
            self.end(job, "FAILED", now, code=1, reason="EngineExited")
        elif job.stage == "starting" and now >= self.slow_until:
            job.port = self._free_port(job)
            self._step(job, "serving", now, port=job.port)
        elif job.stage == "serving" and not job.lies:
            job.stage = "ready"
            if job.model == MODEL:
                self.served.add(job.name)

    def _free_port(self, job: SimJob) -> int:
        """Return the lowest port that nobody has on its node: the dead leave theirs to others at once."""
        taken = {other.port for other in self.jobs.values() if other.has_engine and other.node == job.node}
        return next(port for port in range(FIRST_PORT, FIRST_PORT + len(taken) + 1) if port not in taken)

    def listener(self, host: str | None, port: int | None, now: float) -> Listener | None:
        """Return who answers under an address."""
        for job in self.jobs.values():
            if job.port != port or job.node is None or NODES[job.node] != host or not job.has_engine:
                continue
            if self.folder(job.name).told_to_end_at is not None:
                return None  # its door is closed
            if job.stage in ("serving", "ready") and job.state != "SUSPENDED" and not job.hangs:
                healthy = job.stage == "ready" or job.lies
                model = job.model if job.stage == "ready" else ""
                return Listener(healthy=healthy, secret=job.name, model=model, is_quiet=now >= job.busy_until)
        return None

    def reason(self, job: SimJob, now: float) -> str:
        """Say why a job is pending."""
        if job.state != "PENDING":
            return ""
        if job.held or self._is_kept_back(job):
            return HELD if job.held else KEPT_BACK
        if self._is_full(job):
            return NO_MORE_JOBS
        return "" if self._free_nodes(job, now) or not self.maintenances else MAINTENANCE

    def _is_full(self, job: SimJob) -> bool:
        """Whether a limit on its owner's jobs holds it back; what is being ended does not count (22.05, measured)."""
        running = [j for j in self.jobs.values() if j.state in ("RUNNING", "SUSPENDED") and not j.theirs]
        return not job.theirs and 0 < self.most_running <= len(running)

    def _is_kept_back(self, job: SimJob) -> bool:
        """A twin that runs, or that was submitted before, keeps a job back. A requeued one has no dependency left."""
        return (job.singleton and job.restarts == 0) and any(
            twin.state in ("RUNNING", "SUSPENDED") or (twin.state == "PENDING" and twin.job_id < job.job_id)
            for twin in self.jobs.values()
            if twin.name == job.name and twin is not job
        )

    def _start(self, job: SimJob, now: float) -> None:
        if job.held or now < max(self.silent_until, job.starts_after) or self._is_kept_back(job) or self._is_full(job):
            return
        nodes = self._free_nodes(job, now)
        if nodes:
            node = self.sick if self.sick in nodes else self.rng.choice(nodes)
            job.state, job.node, job.started_at, job.stage = "RUNNING", node, now, "none"

    def _free_nodes(self, job: SimJob, now: float) -> list[str]:
        reserved = {node for each in self.maintenances if each.meets(job, now) for node in each.nodes}
        excluded = self.leaving | self.excluded.get(job.name, frozenset()) | reserved
        return [node for node in NODES if node not in excluded]

    def _begin_script(self, job: SimJob, now: float) -> None:
        """The wrapper's claim. Without it no engine."""
        if now < self.blind_until:
            self.end(job, "FAILED", now, code=1)
            return
        folder = self.folder(job.name)
        if job.restarts or (folder.claim is not None and folder.claim != job.job_id):
            self.end(job, "COMPLETED", now, code=0)
            return
        folder.claim, folder.claim_at = job.job_id, now
        job.stage = "claimed"

    def _take_slot(self, job: SimJob, now: float) -> None:
        """Who comes last has it; the one before gets the time to end, unless it gave it back."""
        job.stage = "slot"
        if not self.has_slots:
            return
        places = [self.place(job), *self._others(job)]
        may_live = any(self.slots[place].job is not None for place in places if place in self.slots)
        self.slots.update({place: Slot(job, now) for place in places})
        job.slot_at = now + HANDOVER if may_live else now

    def _give_back(self, job: SimJob, now: float) -> None:
        if job.stage != "slot":  # who waited for another gives nothing back
            self._leave_slot(self.place(job), job, now)

    def _leave_slot(self, place: str, job: SimJob, now: float) -> None:
        slot = self.slots.get(place)
        if slot is not None and slot.job is job:
            self.slots[place] = Slot(None, now)

    def _look_at_slot(self, job: SimJob, now: float) -> None:
        """End the engine of a job that has lost its slot, and what lived on though its node was given up."""
        if job.lives_until and now >= job.lives_until:
            job.lives_until, job.stage = 0.0, "over"
        if not self.has_slots or not job.gives_signs or job.stage == "claimed":
            return
        slot = self.slots[self.place(job)]
        if slot.job is job or now < slot.since + self.rng.uniform(0.0, LOOKS):
            return
        self.slots_lost += 1
        if job.alive:
            self.end(job, "FAILED", now, code=1, reason="SlotLost")
        else:
            job.lives_until, job.stage = 0.0, "over"

    def _step(self, job: SimJob, stage: str, now: float, port: int | None = None) -> None:
        folder = self.folder(job.name)
        job.stage = folder.step = stage
        folder.port, folder.written_at = port, now

    # --- what goes wrong

    def requeue(self, job: SimJob, now: float) -> None:
        """An administrator requeues a job: the same id, pending again."""
        if job.stage not in ("none", "begun"):
            folder = self.folder(job.name)
            folder.exit, folder.written_at = (143, "Terminated"), now
        job.state, job.stage, job.node, job.started_at = "PENDING", "over", None, None
        job.restarts += 1
        job.ends_at, job.taken_for_queued_until = None, 0.0
        self.requeued.add(job.name)

    def resume(self, job: SimJob, now: float) -> None:
        """Let a suspended job go on. One that has lost its slot meanwhile ends before anything else happens.

        In truth its engine may work beside the new one until its wrapper looks, some seconds.
        """
        if job.state == "SUSPENDED":
            job.state = "RUNNING"
            slot = self.slots.get(self.place(job))
            if job.has_engine and slot is not None and slot.job is not job:
                self.end(job, "FAILED", now, code=1, reason="SlotLost")

    def give_up(self, job: SimJob, now: float, seconds: float) -> None:
        """Take a node for dead that lives: its job is over for Slurm, and goes on for so long."""
        stage = job.stage
        self.end(job, "NODE_FAIL", now, code=0)
        job.stage, job.lives_until = stage, now + seconds

    def kill_wrapper(self, job: SimJob, now: float, seconds: float) -> None:
        """Kill wrapper and guard at once: the job has failed, and its engine goes on for so long."""
        stage = job.stage
        self.end(job, "FAILED", now, code=137)
        job.stage, job.lives_until, job.is_orphan = stage, now + seconds, True

    def end_orphans(self) -> None:
        """End the engines that live without wrapper and guard."""
        for job in [j for j in self.jobs.values() if j.is_orphan]:
            job.lives_until, job.stage = 0.0, "over"

    def lose_state(self, now: float, seconds: float = 3.0) -> None:
        """slurmctld is killed, and comes back with the state of some seconds ago.

        What was submitted since is gone, and the ids are given out again; what began to run since is taken for queued
        until its node registers.
        """
        lost = [j for j in self.jobs.values() if j.alive and now - j.submitted_at < seconds]
        for job in lost:
            del self.jobs[job.job_id]
        if lost:
            self.next_id = min(j.job_id for j in lost)
        for job in self.jobs.values():
            if job.state == "RUNNING" and now - (job.started_at or now) < seconds and not job.restarts:
                job.taken_for_queued_until = now + self.rng.choice((6.0, 15.0, 40.0))
                self.requeued.add(job.name)
        self.silent_until = now + 5.0

    def forget_everything(self, now: float) -> None:
        """slurmctld starts without its state: no job is left, and ids begin anew; accounting never learns of it."""
        self.jobs.clear()
        self.next_id = 1
        self.silent_until = now + 5.0


def _place(job: SimJob, lane: str) -> str:
    return f"{job.name.rpartition('-')[0]} {lane}"
