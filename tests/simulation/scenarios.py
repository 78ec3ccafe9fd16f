"""Worlds laid out by hand, for rules whose moment a random schedule rarely comes to. Each raises `ViolationError`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tests.simulation.controller import SETTINGS, SimController
from tests.simulation.world import Plan, ViolationError, World

MOST_MOVES = 5000


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
def calm_world(services: int, replicas: int, *, has_accounting: bool) -> Iterator[World]:
    """Give a world in which nothing goes wrong by itself, and jobs start at once."""
    world = World(Plan(seed=7, services=services, slots=False))
    world.slurm.has_accounting, world.slurm.queue_waits = has_accounting, (0.0,)
    world.calm = True
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
    with calm_world(1, 1, has_accounting=True) as world:
        world.next_fate, world.slurm.queue_waits = "killed after", (SETTINGS.resync * 1.5,)
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
    silence,
    all_jobs_forgotten,
    unanswered_job_waits,
    id_given_to_another,
    changed_in_a_mass_vanishing,
    scaled_in_a_mass_vanishing,
    all_engines_end_unlisted,
    restarted_in_a_mass_vanishing,
    wrappers_end_unlisted,
    engine_outlives_its_wrapper,
    scancel_fails,
    burst_during_a_reading,
    interrupted_while_read,
    listed_before_it_was_sent,
    clocks_apart,
)
