"""Worlds laid out by hand, for rules whose moment a random schedule rarely comes to. Each raises `ViolationError`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from controller.core.outcomes import Outcome
from tests.simulation.controller import LEASE, LIMITS, SETTINGS, SimController, ended
from tests.simulation.slurm import TIME_LIMIT, SimJob, SimMaintenance
from tests.simulation.traffic import LONG_ANSWERS, SHORT_ANSWERS
from tests.simulation.world import SHORT, Plan, ViolationError, World

MOST_MOVES = 10_000
MOST_STEPS = 30
HAND_OVER_EFFECTS = ("record", "sbatch", "note", "tell a door", "scancel")
"""What a hand-over does to its world, each perhaps more than once."""


def go_on(world: World, until: Callable[[], bool]) -> None:
    """Let the world go on until something is so."""
    for _ in range(MOST_MOVES):
        if until():
            return
        world.move()
    raise ViolationError("it never came to be")


def pass_time(world: World, seconds: float) -> None:
    """Let the world go on for so long."""
    until = world.now + seconds
    go_on(world, lambda: world.now > until)


@contextmanager
def calm_world(
    services: int,
    replicas: int,
    *,
    has_accounting: bool,
    slots: bool = False,
    lanes: bool = False,
    gpus: int = 0,
    controllers: int = 1,
) -> Iterator[World]:
    """Give a world in which nothing goes wrong by itself, and jobs start at once."""
    world = World(Plan(seed=7, services=services, slots=slots, lanes=lanes, gpus=gpus, controllers=controllers))
    world.slurm.has_accounting, world.slurm.queue_waits = has_accounting, (0.0,)
    world.calm, world.traffic.trouble, world.traffic.answers_in = True, 0.0, SHORT_ANSWERS
    for key in world.keys:
        world.database.change(key, replicas=replicas)
    try:
        yield world
    finally:
        world.close()


def starting(world: World) -> int:
    """Count the engines that are starting."""
    return sum(j.stage == "starting" for j in world.slurm.jobs.values())


def mass_vanishing() -> None:
    """squeue prints nothing, with exit code 0, while six engines are starting: they are not replaced."""
    with calm_world(2, 3, has_accounting=False) as world:
        world.slurm.slow_until = float("inf")
        go_on(world, lambda: starting(world) == 6)
        lasts_until = world.now + 100
        world.slurm.listing_fault, world.slurm.listing_fault_until = "empty", lasts_until
        go_on(world, lambda: world.now > lasts_until)
        world.slurm.slow_until = 0.0
        world.settle()


def long_epilog() -> None:
    """A ready job is cancelled, and its node's epilog takes 400 s: its replica is replaced long before, and alone."""
    with calm_world(1, 1, has_accounting=False) as world:
        world.slurm.epilogs = (400.0,)
        go_on(world, lambda: any(j.stage == "ready" for j in world.slurm.jobs.values()))
        (first,) = world.slurm.jobs.values()
        world.slurm.cancel(first, world.now)
        cancelled_at = world.now
        go_on(world, lambda: any(j.stage == "ready" for j in world.slurm.jobs.values() if j is not first))
        if first.state != "COMPLETING" or world.now - cancelled_at > 200:
            raise ViolationError(f"its replica waited for the epilog: {world.now - cancelled_at:.0f} s")
        world.settle()


def long_drain() -> None:
    """A service is changed, and its engine takes 60 s to end: while it does, its replica gets no other."""
    with calm_world(1, 1, has_accounting=False) as world:
        world.slurm.drains = (60.0,)
        go_on(world, lambda: any(j.stage == "ready" for j in world.slurm.jobs.values()))
        (first,) = world.slurm.jobs.values()
        first.hangs = True  # it answers nobody any more, and holds its GPU
        world.database.change(world.keys[0], version=2)
        world.settle()


def heard_late() -> None:
    """Whoever routes requests hears late what drains: it is not ended before, though nothing is in flight on it."""
    with calm_world(1, 1, has_accounting=False, lanes=True) as world:
        world.traffic.rate, world.traffic.hears_after, world.traffic.answers_in = 0.5, (5.0,), (0.1,)
        world.slurm.time_limit = 60.0
        go_on(world, lambda: len(world.handed_over) == 10)


def without_one_gateway(stopped: bool) -> None:
    """One gateway is stopped, or without the database, through all of it: it is not waited for, and fails nobody."""
    with calm_world(1, 1, has_accounting=False, lanes=True) as world:
        world.traffic.rate, world.traffic.hears_after, world.traffic.answers_in = 0.5, (1.0,), (0.1,)
        world.slurm.time_limit = 120.0
        go_on(world, lambda: any(a.ready for a in world.database.attempts.values()))
        pass_time(world, 5.0)
        gateway = world.traffic.gateways[0]
        if stopped:
            gateway.stopped_until = float("inf")
        else:
            gateway.cut_off_until = float("inf")
        go_on(world, lambda: len(world.handed_over) == 1)
        first = set(world.handed_over)  # when the gateway may live still, for all that is known
        go_on(world, lambda: len(world.handed_over) == 5)
        for token in world.handed_over - first:
            if token not in world.ended_idle:
                raise ViolationError(f"{token} was ended when its time was over, and nothing was in flight")
            attempt, told_at = world.database.attempt(token), world.slurm.folder(token).told_at
            since = attempt.draining_since if attempt is not None else None
            if since is None or told_at is None or told_at >= since + LIMITS.drain_hears:
                raise ViolationError(f"the door of {token} was told as late as if the gateway could still hear")


def stopped_gateway() -> None:
    """One gateway is stopped through all hand-overs."""
    without_one_gateway(stopped=True)


def cut_off_gateway() -> None:
    """One gateway is without the database through all hand-overs, and routes as it last heard."""
    without_one_gateway(stopped=False)


def deaf_gateway() -> None:
    """One gateway lives and never hears what drains: it is waited for, but not for as long as an answer may take."""
    with calm_world(1, 1, has_accounting=False, lanes=True) as world:
        world.traffic.rate, world.traffic.answers_in = 0.5, (0.1,)
        world.slurm.time_limit = 120.0
        go_on(world, lambda: any(a.ready for a in world.database.attempts.values()))
        pass_time(world, 5.0)
        world.traffic.gateways[0].hears_at = float("inf")
        go_on(world, lambda: len(world.handed_over) == 3)
        attempts = [world.database.attempts[token] for token in world.handed_over]
        if waited := [a.token for a in attempts if a.shut_at is None]:
            raise ViolationError(f"the doors of {waited} waited for a gateway that does not hear")


def gateway_comes_back() -> None:
    """A gateway that was stopped goes on with its old table: what it asks has shut its door, or serves on."""
    with calm_world(1, 1, has_accounting=False, lanes=True) as world:
        world.traffic.rate, world.traffic.hears_after, world.traffic.answers_in = 1.0, (5.0,), (0.1,)
        world.slurm.time_limit = 60.0
        gateway = world.traffic.gateways[0]
        for count in range(1, 8):
            gateway.stopped_until = world.now + 6.0 * count
            go_on(world, lambda count=count: len(world.handed_over) == count)


def leader_stopped() -> None:
    """In each step of a hand-over the leader is stopped until another one has led on; then it goes on where it was."""
    for step in (f"{when} {effect}" for effect in HAND_OVER_EFFECTS for when in ("before", "after")):
        most = next(nth for nth in range(1, MOST_STEPS) if not stopped_at(step, nth))
        if most == 1:
            raise ViolationError(f"no hand-over comes to {step}")


def stopped_at(step: str, nth: int) -> bool:
    """Stop the leader when a hand-over comes to a step for so many times; return whether it did."""
    with calm_world(1, 1, has_accounting=True, lanes=True, controllers=2) as world:
        world.slurm.time_limit, world.traffic.answers_in = 120.0, (0.1,)
        go_on(world, lambda: any(a.ready for a in world.database.attempts.values()))
        (old,) = world.database.attempts
        world.slurm.time_limit = TIME_LIMIT  # of its successor
        go_on(world, lambda: world.reached["other lane opened: TimeLimit"] > 0)
        before, epoch, closed = world.reached[step], world.database.epoch, dict[str, float]()

        def goes_well_until(is_over: Callable[[], bool]) -> None:
            go_on(world, lambda: judge_attempts(world, closed) or is_over())

        goes_well_until(lambda: world.reached[step] == before + nth or is_gone(world, old))
        at = next((c for c in world.controllers if any(thread.at == step for thread in c.threads)), None)
        if world.reached[step] < before + nth or at is None:
            return False
        at.pause(float("inf"))
        goes_well_until(lambda: world.database.epoch > epoch and is_gone(world, old))
        at.pause(world.now)
        until = world.now + 4 * LEASE
        goes_well_until(lambda: world.now > until)
        came = {t for t in closed if world.database.attempts[t].outcome != Outcome.NEVER_STARTED}
        if came != {old}:
            raise ViolationError(f"{sorted(came)} were closed for one hand-over, stopped {step}, {nth}")
        world.settle()
    return True


def judge_attempts(world: World, closed: dict[str, float]) -> None:
    """There are two of a replica at most, and what was closed stays so, since when it was."""
    attempts = world.database.attempts.values()
    if len(left := [a.token for a in attempts if a.gone_at is None]) > 2:
        raise ViolationError(f"{left} are there at a time")
    for attempt in attempts:
        if attempt.closed_at is not None and closed.setdefault(attempt.token, attempt.closed_at) != attempt.closed_at:
            raise ViolationError(f"{attempt.token} was closed twice")


def is_gone(world: World, token: str) -> bool:
    """Whether nothing is left of an attempt."""
    return world.database.attempts[token].gone_at is not None


def preferred_again() -> None:
    """A successor dies while the old one drains behind a shut door: the old one serves again, and lets all in."""
    with calm_world(1, 1, has_accounting=True, lanes=True) as world:
        world.slurm.time_limit, world.traffic.answers_in = 120.0, (1000.0,)
        go_on(world, lambda: world.reached["door told to drain"] > 0)
        (first, second) = sorted(world.slurm.jobs.values(), key=lambda j: j.job_id)
        world.slurm.queue_waits = (1e6,)
        world.slurm.end(second, "NODE_FAIL", world.now, code=0)
        go_on(world, lambda: world.reached["preferred again"] > 0)
        pass_time(world, 3.0)
        if first.stage != "ready" or world.slurm.folder(first.name).told_at is not None:
            raise ViolationError("what serves again lets nobody in")


def lives_on_in_the_other_lane() -> None:
    """Both nodes are lost, and that of the older lane lives on: what comes in the other lane waits for its end."""
    with calm_world(1, 1, has_accounting=False, slots=True) as world:
        world.slurm.time_limit = SHORT
        go_on(world, lambda: sum(j.has_engine for j in world.slurm.jobs.values()) == 2)
        first, second = world.slurm.jobs.values()
        first.hangs = True  # while it answers as itself, its replica is not replaced
        world.slurm.give_up(first, world.now, seconds=300.0)
        world.slurm.end(second, "NODE_FAIL", world.now, code=0)
        world.settle()


def changed_one_after_another() -> None:
    """Three replicas serve and their service is changed: one after another hands over, and all serve meanwhile."""
    with calm_world(1, 3, has_accounting=True) as world:
        go_on(world, lambda: serving(world) == 3)
        world.database.change(world.keys[0], version=2)
        go_on(world, lambda: serving(world) < 3 or world.unsettled() is None)
        if serving(world) < 3:
            raise ViolationError("a change took a replica away before its successor served")
        world.settle()


def changed_in_vain() -> None:
    """Two replicas serve, and the first one's successor fails three times: nothing else is touched by the change."""
    with calm_world(1, 2, has_accounting=True) as world:
        go_on(world, lambda: serving(world) == 2)
        world.database.change(world.keys[0], version=2)
        for _ in range(3):
            go_on(world, lambda: starting(world) > 0)
            (successor,) = [j for j in world.slurm.jobs.values() if j.stage == "starting"]
            world.slurm.end(successor, "FAILED", world.now, code=1)
            if serving(world) < 2:
                raise ViolationError("a change that failed took a replica with it")
        world.settle()


def changed_while_paused() -> None:
    """Three replicas serve, are changed, and the change is held back: nothing is touched before it is to go on."""
    with calm_world(1, 3, has_accounting=True) as world:
        go_on(world, lambda: serving(world) == 3)
        (key,) = world.keys
        world.database.change(key, version=2, paused=True)
        before = dict(world.database.attempts)
        pass_time(world, 60.0)
        if world.database.attempts.keys() != before.keys() or serving(world) < 3:
            raise ViolationError("a change that is held back touched what runs")
        world.database.change(key, paused=False)
        go_on(world, lambda: world.database.attempts.keys() != before.keys())
        world.settle()


def serving(world: World) -> int:
    """Count the replicas that requests are sent to."""
    return len({(a.service_id, a.replica) for a in world.database.attempts.values() if a.serves})


@contextmanager
def one_ready() -> Iterator[tuple[World, SimJob]]:
    """Give a world with one replica that is ready, whose job's time is long, and that job."""
    with calm_world(1, 1, has_accounting=True) as world:
        go_on(world, lambda: any(a.ready for a in world.database.attempts.values()))
        (first,) = world.slurm.jobs.values()
        yield world, first


def succeeded(world: World, first: SimJob) -> bool:
    """Whether an attempt is ready that does not run as the first job."""
    return any(a.serves and a.token != first.name for a in world.database.attempts.values())


def told_to_end() -> None:
    """Somebody tells a job to end, whose time is long: its successor is ready before its engine has ended."""
    with one_ready() as (world, first):
        world.slurm.tell_to_end(first, world.now)
        go_on(world, lambda: succeeded(world, first) or not first.has_engine)
        if not first.has_engine:
            raise ViolationError("it was replaced only after its end")
        world.settle()


def told_and_unheard() -> None:
    """What is told to end answers no check of its health any more, for long: it is let to finish what it has."""
    with one_ready() as (world, first):
        world.slurm.queue_waits = (1e6,)  # its successor waits
        world.slurm.tell_to_end(first, world.now)
        go_on(world, lambda: not first.has_engine)
        if world.reached["cancel"]:
            raise ViolationError("it was cancelled while it finished what it had")
        for job in world.slurm.jobs.values():
            job.starts_after = world.now
        world.slurm.queue_waits = (0.0,)
        world.settle()


def drained_node() -> None:
    """The node of a ready job is drained: a successor elsewhere takes over, and only then its job ends."""
    with one_ready() as (world, first):
        assert first.node is not None
        began = world.now
        world.slurm.leaving.add(first.node)
        go_on(world, lambda: succeeded(world, first) or world.now > began + 300)
        if not succeeded(world, first):
            raise ViolationError("the drain of its node was waited for")
        go_on(world, lambda: not first.alive)
        world.settle()


def limit_cut() -> None:
    """An administrator cuts the time of a ready job: its successor is ready before that is over."""
    with one_ready() as (world, first):
        assert first.started_at is not None
        first.time_limit = world.now - first.started_at + 100.0
        go_on(world, lambda: succeeded(world, first) or not first.has_engine)
        if not first.has_engine:
            raise ViolationError("it was replaced only after its end")
        world.settle()


def limit_extended() -> None:
    """An administrator gives a ready job more time: it has no successor before it needs one."""
    with calm_world(1, 1, has_accounting=True) as world:
        world.slurm.time_limit = 400.0
        go_on(world, lambda: serving(world) == 1)
        (first,) = world.slurm.jobs.values()
        first.time_limit = TIME_LIMIT
        pass_time(world, 600.0)
        if len(world.database.attempts) != 1:
            raise ViolationError("it was replaced though its time was far from over")
        world.settle()


def maintenance_ahead() -> None:
    """A maintenance of all nodes begins before a job would end: it serves until then, and after it, as ever."""
    with maintained(SimMaintenance(1600.0, 2000.0)) as world:
        go_on(world, lambda: serving(world) == 1 or world.now > 1600.0)
        judge_shortened(world, until=1600.0)
        go_on(world, lambda: world.now > 1600.0)
        if too_short := [j.job_id for j in world.slurm.jobs.values() if j.time_limit < LEAST_MINUTES * 60]:
            raise ViolationError(f"the jobs {too_short} were shortened to less than their service allows")
        go_on(world, lambda: serving(world) == 1)
        world.slurm.maintenances.clear()
        world.settle()


def maintenance_and_another_term() -> None:
    """The same, and the controller is killed before and after scontrol: the next term does what is left to do."""
    for step in ("before shorten", "after shorten"):
        with maintained(SimMaintenance(1600.0, 2000.0)) as world:
            (controller,) = world.controllers
            go_on(world, lambda at=step, threads=controller.threads: any(t.at == at for t in threads))
            controller.crash(world.now + 1.0)
            go_on(world, lambda: serving(world) == 1 or world.now > 1600.0)
            judge_shortened(world, until=1600.0)


def maintenance_unheard() -> None:
    """slurmctld is away for the moment in which a job is to be shortened: that is told, and made up for."""
    with maintained(SimMaintenance(2400.0, 2800.0)) as world:
        go_on(world, lambda: any(t.at == "before shorten" for t in world.controllers[0].threads))
        world.slurm.silent_until = world.now + 5.0
        go_on(world, lambda: world.now > world.slurm.silent_until + 20.0)
        record = ended(world.database.store.load(world.keys[0]))
        assert record is not None
        if not any("could not be shortened" in c.message for c in record.status.conditions):
            raise ViolationError("that it could not be shortened is not told")
        if world.reached["shortened"] > 1:
            raise ViolationError("what failed was done again and again")
        go_on(world, lambda: serving(world) == 1 or world.now > 2400.0)
        judge_shortened(world, until=2400.0)


def maintenance_of_one_node_first() -> None:
    """One node is mended soon, and all of them later: what has room on the others runs until then."""
    with maintained(SimMaintenance(1100.0, 1600.0, ("n0",)), SimMaintenance(1600.0, 2000.0)) as world:
        go_on(world, lambda: serving(world) == 1 or world.now > 1600.0)
        judge_shortened(world, until=1600.0)
        if min(j.time_limit for j in world.slurm.jobs.values()) < 400.0:
            raise ViolationError("it was shortened for a node that it does not need")


def maintenance_too_near() -> None:
    """Not even the least time of a job fits in before a maintenance: it is left as it is, and waits."""
    with maintained(SimMaintenance(1150.0, 1400.0)) as world:
        go_on(world, lambda: world.now > 1300.0)
        if world.reached["shortened"] or serving(world):
            raise ViolationError("it was shortened to less than its service allows")
        go_on(world, lambda: serving(world) == 1)
        world.slurm.maintenances.clear()
        world.settle()


LEAST_MINUTES = 2


@contextmanager
def maintained(*maintenances: SimMaintenance) -> Iterator[World]:
    """Give a world with one replica whose job may be shortened, before maintenance is to come."""
    with calm_world(1, 1, has_accounting=True) as world:
        world.database.time_min = LEAST_MINUTES
        world.slurm.maintenances += maintenances
        yield world


def judge_shortened(world: World, until: float) -> None:
    """What serves ends before a maintenance, and has the most of the time until then."""
    jobs = [j for j in world.slurm.jobs.values() if j.state == "RUNNING" and j.started_at is not None]
    if serving(world) != 1:
        raise ViolationError("it waited for the end of the maintenance")
    for job in jobs:
        ends_at = (job.started_at or 0.0) + job.time_limit
        if not until - 180.0 < ends_at <= until:
            raise ViolationError(f"job {job.job_id} ends {until - ends_at:.0f} s before the maintenance begins")


def successor_held_and_cancelled() -> None:
    """A successor is held, which is told at once, and cancelled by hand: another one takes over in time."""
    with one_ready() as (world, first):
        assert first.node is not None and first.started_at is not None
        world.slurm.queue_waits = (1e6,)
        world.slurm.leaving.add(first.node)
        go_on(world, lambda: len(world.slurm.jobs) == 2)
        second = max(world.slurm.jobs.values(), key=lambda job: job.job_id)
        second.held = True
        pass_time(world, 30.0)
        record = ended(world.database.store.load(world.keys[0]))
        assert record is not None
        if not any((c.type, c.reason) == ("Continuous", "SuccessorLate") for c in record.status.conditions):
            raise ViolationError("that its successor is held was not told")
        world.slurm.queue_waits = (0.0,)
        world.slurm.cancel(second, world.now)
        go_on(world, lambda: succeeded(world, first) or not first.has_engine)
        if not first.has_engine:
            raise ViolationError("it ended without a successor")
        world.settle()


def makes_room() -> None:
    """Three replicas hold all GPUs that there may be: one after another ends in time, drained, and two always serve."""
    make_room(3, time_limit=300.0, answers_in=SHORT_ANSWERS)


def makes_room_while_busy() -> None:
    """The same with five that began at once, and answers of up to a minute, of which some are cut: none is late."""
    make_room(5, time_limit=600.0, answers_in=LONG_ANSWERS)


def make_room(replicas: int, *, time_limit: float, answers_in: tuple[float, ...]) -> None:
    with calm_world(1, replicas, has_accounting=True, lanes=True, gpus=replicas) as world:
        world.slurm.time_limit, world.slurm.drains, world.slurm.epilogs = time_limit, (3.0,), (0.0,)
        world.traffic.answers_in, world.database.no_room = answers_in, "shrink"
        go_on(world, lambda: serving(world) == replicas)
        ends_at = world.now + 1500.0
        go_on(world, lambda: world.now > ends_at or serving(world) < replicas - 1)
        if serving(world) < replicas - 1:
            raise ViolationError(f"only {serving(world)} of {replicas} serve")
        late = [a.token for a in world.database.attempts.values() if a.outcome in ("TimeLimit", "Terminated")]
        if late:
            raise ViolationError(f"{late} came to their time limits")
        world.settle()


def sick_node() -> None:
    """On the node that is always the first to be free no engine starts: two services give up no more than it."""
    with calm_world(2, 1, has_accounting=True) as world:
        world.slurm.sick = "n0"
        world.database.change(world.keys[1], version=2)
        go_on(world, lambda: serving(world) == 2 or len(world.database.attempts) > 8)
        if any(job.node == "n0" and job.alive for job in world.slurm.jobs.values()) or serving(world) < 2:
            raise ViolationError("jobs went to the sick node again and again")
        world.settle()


def sick_node_and_another_term() -> None:
    """The same, and the controller is restarted before a service fails again: what was recorded still counts."""
    with calm_world(2, 1, has_accounting=True) as world:
        world.slurm.sick = "n0"
        world.database.change(world.keys[1], version=2)
        go_on(world, lambda: sum(not a.open for a in world.database.attempts.values()) >= 3)
        world.controllers[0].crash(world.now + 1.0)
        go_on(world, lambda: serving(world) == 2 or len(world.database.attempts) > 7)
        if serving(world) < 2:
            raise ViolationError("jobs went to the sick node again and again")
        world.settle()


def silence() -> None:
    """slurmctld says nothing while an engine is starting: it is not replaced."""
    with calm_world(1, 1, has_accounting=False) as world:
        world.slurm.slow_until = float("inf")
        go_on(world, lambda: starting(world) == 1)
        world.slurm.silent_until, world.next_fate = world.now + 90, "late"
        go_on(world, lambda: world.now > world.slurm.silent_until + 20)
        if len(world.database.attempts) != 1:
            raise ViolationError("an engine was replaced because nobody could be asked about it")
        world.slurm.slow_until = 0.0
        world.settle()


def all_jobs_forgotten() -> None:
    """slurmctld comes back without the six jobs that were queued, and nobody else knows of them: they are replaced."""
    with calm_world(2, 3, has_accounting=False) as world:
        world.slurm.queue_waits = (1e6,)
        go_on(world, lambda: sum(a.job_id is not None for a in world.database.attempts.values()) == 6)
        world.slurm.queue_waits = (0.0,)
        world.slurm.forget_everything(world.now)
        world.settle()


def unanswered_job_waits() -> None:
    """An sbatch that was killed before its answer made a job, which waits in the queue: it is waited for."""
    job_of_an_odd_answer_waits("killed after")


def job_without_an_id_waits() -> None:
    """An sbatch that exits with 0 and prints no id made a job, which waits in the queue: it is waited for."""
    job_of_an_odd_answer_waits("unlabelled")


def job_of_an_odd_answer_waits(fate: str) -> None:
    with calm_world(1, 1, has_accounting=True) as world:
        world.next_fate, world.slurm.queue_waits = fate, (SETTINGS.resync * 1.5,)
        go_on(world, lambda: any(a.ready for a in world.database.attempts.values()))
        if len(world.database.attempts) != 1:
            raise ViolationError("its place in the queue was given up")


def id_given_to_another() -> None:
    """While a cancel is on its way, slurmctld forgets the job and gives its id to a stranger's: that is left alone."""
    with calm_world(1, 1, has_accounting=False) as world:
        go_on(world, lambda: any(a.ready for a in world.database.attempts.values()))
        world.database.change(world.keys[0], running=False)
        go_on(world, lambda: any(t.at == "before scancel" for t in world.controllers[0].threads))
        (job_id,) = world.slurm.jobs
        world.slurm.forget_everything(world.now)
        world.slurm.next_id = job_id
        world.slurm.jobs[world.slurm.create("stranger", world.now)].theirs = True
        go_on(world, lambda: not any(t.at == "before scancel" for t in world.controllers[0].threads))
        world.settle()


def changed_in_a_mass_vanishing() -> None:
    """Six engines are starting, squeue prints nothing, and their service is changed: they are not replaced yet."""
    with starting_and_unlisted(lasts=100) as world:
        world.database.change(world.keys[0], version=2)


def scaled_in_a_mass_vanishing() -> None:
    """Six engines are starting, squeue prints nothing, and one is given up and wanted again: it has not gone."""
    with starting_and_unlisted(lasts=100) as world:
        world.database.change(world.keys[0], replicas=2)
        go_on(world, lambda: any(not a.open for a in world.database.attempts.values()))
        world.database.change(world.keys[0], replicas=3)


@contextmanager
def starting_and_unlisted(lasts: float) -> Iterator[World]:
    """Give a world of six engines that are starting while squeue prints nothing, with exit code 0, for so long."""
    with calm_world(2, 3, has_accounting=False) as world:
        world.slurm.slow_until = float("inf")
        go_on(world, lambda: starting(world) == 6)
        lasts_until = world.now + lasts
        world.slurm.listing_fault, world.slurm.listing_fault_until = "empty", lasts_until
        go_on(world, lambda: any(doubted(c) for c in world.controllers))
        yield world
        go_on(world, lambda: world.now > lasts_until)
        world.slurm.slow_until = 0.0
        world.settle()


def doubted(controller: SimController) -> bool:
    """Whether it sees a mass vanishing."""
    snapshot = controller.snapshot
    return snapshot is not None and bool(snapshot.in_doubt)


def all_engines_end_unlisted() -> None:
    """slurmctld comes back without six jobs whose engines end with it: within a minute others have been started.

    Their wrappers give no signs of life: nobody else can tell.
    """
    with calm_world(2, 3, has_accounting=False) as world:
        world.slurm.wrappers_sign = False
        go_on(world, lambda: sum(a.ready for a in world.database.attempts.values()) == 6)
        world.slurm.forget_everything(world.now)
        began = world.now
        go_on(world, lambda: starting(world) + sum(j.stage == "ready" for j in world.slurm.jobs.values()) == 6)
        if world.now - began > 60:
            raise ViolationError(f"they were started {world.now - began:.0f} s after all had ended")
        world.settle()


def restarted_in_a_mass_vanishing() -> None:
    """The same, and the controller is restarted meanwhile: its new term counts anew, and is as quick."""
    with calm_world(2, 3, has_accounting=False) as world:
        go_on(world, lambda: sum(a.ready for a in world.database.attempts.values()) == 6)
        world.slurm.forget_everything(world.now)
        began = world.now
        pass_time(world, 20.0)
        for controller in world.controllers:
            controller.crash(world.now + 1.0)
        go_on(world, lambda: starting(world) + sum(j.stage == "ready" for j in world.slurm.jobs.values()) == 6)
        if world.now - began > 100:
            raise ViolationError(f"they were started {world.now - began:.0f} s after all had ended")
        world.settle()


def wrappers_end_unlisted() -> None:
    """The same while they were starting, so that no engine can tell: their wrappers' signs of life do."""
    with calm_world(2, 3, has_accounting=False) as world:
        world.slurm.slow_until = float("inf")
        go_on(world, lambda: starting(world) == 6)
        world.slurm.forget_everything(world.now)
        began = world.now
        go_on(world, lambda: starting(world) == 6)
        if world.now - began > 60:
            raise ViolationError(f"they were started {world.now - began:.0f} s after all had ended")
        world.slurm.slow_until = 0.0
        world.settle()


def engine_outlives_its_wrapper() -> None:
    """Wrapper and guard are killed, and their engine, which can prove nothing, answers on: none starts beside it."""
    with calm_world(1, 1, has_accounting=True) as world:
        world.slurm.engines_prove_themselves = False
        go_on(world, lambda: any(a.ready for a in world.database.attempts.values()))
        job = next(j for j in world.slurm.jobs.values() if j.stage == "ready")
        world.slurm.kill_wrapper(job, world.now, 100.0)
        pass_time(world, 90.0)
        world.settle()


def cancelled_without_its_node() -> None:
    """slurmctld takes an engine that starts for a queued job, and calls it cancelled: its node runs it on."""
    with calm_world(1, 1, has_accounting=True) as world:
        world.slurm.slow_until, world.slurm.queue_waits = float("inf"), (10.0,)
        go_on(world, lambda: any(j.state == "RUNNING" for j in world.slurm.jobs.values()))
        (job,) = world.slurm.jobs.values()
        world.slurm.lose_state(world.now)
        job.taken_for_queued_until = world.now + 60.0
        world.slurm.queue_waits = (0.0,)
        go_on(world, lambda: starting(world) == 1)
        world.slurm.cancel(job, world.now)
        pass_time(world, 90.0)
        world.slurm.slow_until = 0.0
        world.settle()


def scancel_fails() -> None:
    """slurmctld is away for the second in which a job is to be cancelled: it is cancelled soon after."""
    with calm_world(1, 1, has_accounting=True) as world:
        go_on(world, lambda: any(a.ready for a in world.database.attempts.values()))
        world.database.change(world.keys[0], running=False)
        go_on(world, lambda: any(t.at == "before scancel" for t in world.controllers[0].threads))
        world.slurm.silent_until = world.now + 1.0
        go_on(world, lambda: not any(t.at == "before scancel" for t in world.controllers[0].threads))
        answers_at = world.slurm.silent_until
        go_on(world, lambda: world.reached["cancel"] > 0)
        if world.now > answers_at + 8:
            raise ViolationError(f"it was cancelled {world.now - answers_at:.0f} s after slurmctld answered again")
        world.settle()


def burst_during_a_reading() -> None:
    """While squeue's answer comes six jobs are submitted and noted: it can't list them, and none of them is missed."""
    with calm_world(3, 0, has_accounting=False) as world:
        (controller,) = world.controllers
        go_on(world, lambda: controller.snapshot is not None)
        go_on(world, lambda: any(t.at == "after squeue" for t in controller.threads))
        controller.waits = "read"
        for key in world.keys:
            world.database.change(key, replicas=2)
        go_on(world, lambda: sum(a.submitted_at is not None for a in world.database.attempts.values()) == 6)
        pass_time(world, 20)
        decide_on_the_next_reading(world, controller)
        world.settle()


def decide_on_the_next_reading(world: World, controller: SimController) -> None:
    """Let the reading that was held up end, and passes see it before there is another one."""
    before, controller.waits = controller.snapshot, ""
    go_on(world, lambda: controller.snapshot is not before)
    controller.waits = "read"
    pass_time(world, 20)
    controller.waits = ""


def interrupted_while_read() -> None:
    """sbatch is broken off after a listing was made that can't hold its job: that listing says nothing of it."""
    with calm_world(1, 1, has_accounting=False) as world:
        (controller,) = world.controllers
        world.next_fate, world.slurm.queue_waits = "interrupted", (60.0,)
        go_on(world, lambda: any(t.at == "before sbatch" for t in controller.threads))
        controller.waits = "pass"
        readings = world.reached["after squeue"]
        go_on(world, lambda: world.reached["after squeue"] > readings + 3)
        controller.waits = ""
        go_on(world, lambda: world.reached["after squeue"] > readings + 8)
        world.settle()


def listed_before_it_was_sent() -> None:
    """A listing is made, then a job is submitted, then the listing's answer comes: it says nothing of that job."""
    with calm_world(1, 1, has_accounting=False) as world:
        (controller,) = world.controllers
        world.slurm.queue_waits = (60.0,)
        go_on(world, lambda: any(t.at == "before sbatch" for t in controller.threads))
        controller.waits = "pass"
        go_on(world, lambda: any(t.at == "after squeue" for t in controller.threads))
        controller.waits = "read"
        go_on(world, lambda: any(a.job_id is not None for a in world.database.attempts.values()))
        decide_on_the_next_reading(world, controller)
        world.settle()


def clocks_apart() -> None:
    """A listing lacks a queued job for a moment; the next leader's clock is an hour ahead: no grace is over by that."""
    with calm_world(1, 1, has_accounting=False) as world:
        world.slurm.queue_waits = (200.0,)
        go_on(world, lambda: any(a.job_id is not None for a in world.database.attempts.values()))
        world.slurm.listing_fault, world.slurm.listing_fault_until = "empty", float("inf")
        go_on(world, lambda: any(a.absent_since is not None for a in world.database.attempts.values()))
        (controller,) = world.controllers
        controller.crash(world.now + 0.5)
        controller.clock_offset = 3600.0
        terms = world.reached["term"]
        go_on(world, lambda: world.reached["term"] > terms and controller.snapshot is not None)
        world.slurm.listing_fault_until = world.now + 5.0
        go_on(world, lambda: any(a.ready for a in world.database.attempts.values()))
        if len(world.database.attempts) != 1:
            raise ViolationError("its place in the queue was given up by the difference of two clocks")
        world.settle()


SCENARIOS: tuple[Callable[[], None], ...] = (
    mass_vanishing,
    long_epilog,
    long_drain,
    makes_room,
    makes_room_while_busy,
    limit_cut,
    limit_extended,
    maintenance_ahead,
    maintenance_and_another_term,
    maintenance_unheard,
    maintenance_of_one_node_first,
    maintenance_too_near,
    successor_held_and_cancelled,
    sick_node,
    sick_node_and_another_term,
    silence,
    all_jobs_forgotten,
    unanswered_job_waits,
    job_without_an_id_waits,
    id_given_to_another,
    changed_in_a_mass_vanishing,
    scaled_in_a_mass_vanishing,
    all_engines_end_unlisted,
    restarted_in_a_mass_vanishing,
    wrappers_end_unlisted,
    engine_outlives_its_wrapper,
    cancelled_without_its_node,
    heard_late,
    told_to_end,
    told_and_unheard,
    drained_node,
    stopped_gateway,
    cut_off_gateway,
    deaf_gateway,
    gateway_comes_back,
    leader_stopped,
    preferred_again,
    lives_on_in_the_other_lane,
    changed_one_after_another,
    changed_in_vain,
    changed_while_paused,
    scancel_fails,
    burst_during_a_reading,
    interrupted_while_read,
    listed_before_it_was_sent,
    clocks_apart,
)
