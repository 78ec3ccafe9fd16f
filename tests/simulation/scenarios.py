"""Worlds laid out by hand, for rules whose moment a random schedule rarely comes to. Each raises `ViolationError`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tests.simulation.controller import RESYNC
from tests.simulation.world import Plan, ViolationError, World

MOST_MOVES = 5000


def go_on(world: World, until: Callable[[], bool]) -> None:
    """Let the world go on until something is so."""
    for _ in range(MOST_MOVES):
        if until():
            return
        world.move()
    raise ViolationError("it never came to be")


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
        world.next_fate, world.slurm.queue_waits = "killed after", (RESYNC * 1.5,)
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


SCENARIOS: tuple[Callable[[], None], ...] = (
    mass_vanishing,
    silence,
    all_jobs_forgotten,
    unanswered_job_waits,
    id_given_to_another,
)
