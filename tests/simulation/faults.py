"""What can go wrong, drawn at random; each is named, so that runs can say how often it was met."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from tests.simulation.adapters import BOUNDARIES, EFFECTS
from tests.simulation.slurm import MODEL

if TYPE_CHECKING:
    from tests.simulation.slurm import SimJob
    from tests.simulation.world import World


def alive(world: World) -> list[SimJob]:
    return [j for j in world.slurm.jobs.values() if j.alive]


def running(world: World) -> list[SimJob]:
    return [j for j in world.slurm.jobs.values() if j.state == "RUNNING"]


def slurmctld_silent(world: World) -> None:
    world.slurm.silent_until = world.now + world.rng.choice((2.0, 15.0, 90.0))


def slurmctld_loses_state(world: World) -> None:
    world.slurm.lose_state(world.now)


def slurmctld_rolled_back(world: World) -> None:
    world.slurm.lose_state(world.now, seconds=25.0)


def listing_lies(world: World) -> None:
    """squeue prints nothing, or half, and exits with 0. Whoever has restored a database must be able to look."""
    if world.restored:
        return
    # Without slots not for so long that an engine which hangs beside it is replaced.
    seconds = (3.0, 10.0, 40.0) if world.plan.slots else (3.0, 10.0)
    world.slurm.listing_fault = world.rng.choice(("empty", "half"))
    world.slurm.listing_fault_until = world.now + world.rng.choice(seconds)


def accounting_down(world: World) -> None:
    world.slurm.accounting_down_until = world.now + world.rng.choice((10.0, 100.0))


def node_dies(world: World) -> None:
    victims = running(world)
    if victims:
        node = world.rng.choice(victims).node
        for job in [j for j in victims if j.node == node]:
            world.slurm.end(job, "NODE_FAIL", world.now, code=0)


def node_given_up(world: World) -> None:
    """slurmctld takes a node for dead, which lives on and can't hear it."""
    victims = [j for j in running(world) if j.has_engine]
    if victims:
        node = world.rng.choice(victims).node
        for job in [j for j in victims if j.node == node]:
            world.slurm.give_up(job, world.now, world.rng.choice((15.0, 60.0, 300.0)))


def listing_lies_for_long(world: World) -> None:
    """Longer than a mass vanishing is doubted, and nobody else says a word."""
    if world.restored or world.rng.random() < 0.7:
        return
    world.slurm.listing_fault = world.rng.choice(("empty", "half"))
    world.slurm.listing_fault_until = world.slurm.accounting_down_until = world.now + 250.0


def preempted(world: World) -> None:
    for job in running(world)[:1]:
        world.slurm.terminate(job, "PREEMPTED", world.now)


def preempted_with_grace(world: World) -> None:
    """Slurm cuts a job's time for another one, and some sites have the job told at once."""
    victims = running(world)
    if victims:
        job = world.rng.choice(victims)
        world.slurm.preempt(job, world.now, world.rng.choice((5.0, 30.0, 90.0)))
        if world.rng.random() < 0.5:
            world.slurm.tell_to_end(job, world.now)


def node_drained(world: World) -> None:
    """An administrator takes a node out of service for a while: what runs there goes on, and nothing new begins."""
    victims = running(world)
    if victims:
        node = world.rng.choice(victims).node
        assert node is not None
        world.slurm.leaving.add(node)
        world.later(world.rng.choice((40.0, 200.0)), lambda: world.slurm.leaving.discard(node))


def time_limit(world: World) -> None:
    for job in running(world)[:1]:
        world.slurm.terminate(job, "TIMEOUT", world.now)


def suspended(world: World) -> None:
    """An administrator, or gang scheduling, suspends a job for a while."""
    victims = running(world)
    if victims:
        job = victims[0]
        job.state = "SUSPENDED"
        world.later(world.rng.choice((5.0, 40.0)), lambda: world.slurm.resume(job, world.now))


def engine_dies(world: World) -> None:
    victims = [j for j in running(world) if j.has_engine]
    if victims:
        world.slurm.end(world.rng.choice(victims), "FAILED", world.now, code=1, reason="EngineExited")


def wrapper_and_guard_killed(world: World) -> None:
    """An engine that has been heard, and whose door is open, outlives its job.

    Of others, and where a database was restored, nobody can know.
    """
    victims = [
        j
        for j in running(world)
        if j.stage == "ready" and j.model == MODEL and not j.hangs and not j.lies and not j.taken_for_queued_until
        if world.slurm.folder(j.name).told_at is None and world.slurm.folder(j.name).told_to_end_at is None
        if (attempt := world.database.attempt(j.name)) is not None and attempt.ready_at is not None
    ]
    if victims and not world.restored:
        world.slurm.kill_wrapper(world.rng.choice(victims), world.now, world.rng.choice((15.0, 60.0, 300.0)))


def engine_lies(world: World) -> None:
    """An engine that calls itself well while it serves nothing, or that serves another model."""
    victims = [j for j in running(world) if j.has_engine]
    if victims:
        job = world.rng.choice(victims)
        if job.stage == "ready" or world.rng.random() < 0.5:
            job.model = "another"
        else:
            job.lies = True


def engine_hangs(world: World) -> None:
    victims = [j for j in running(world) if j.has_engine]
    if victims:
        world.rng.choice(victims).hangs = True


def requeued(world: World) -> None:
    victims = running(world)
    if victims:
        job = world.rng.choice(victims)
        had_begun = job.has_engine
        world.slurm.requeue(job, world.now)
        # scontrol requeuehold; of a job that had not begun nobody can tell it from a held one
        job.held = had_begun and world.rng.random() < 0.3


def held(world: World) -> None:
    pending = [j for j in alive(world) if j.state == "PENDING"]
    if pending:
        job = world.rng.choice(pending)
        job.held = True
        world.later(world.rng.choice((5.0, 60.0)), lambda: setattr(job, "held", False))


def cancelled_by_hand(world: World) -> None:
    jobs = alive(world)
    if jobs:
        world.slurm.cancel(world.rng.choice(jobs), world.now)


OTHERS = "af-other-"
"""How another installation's tokens begin."""


def look_alike(world: World) -> None:
    """A stranger's job under a name like ours, and another installation's, whose services are called as ours."""
    ours = [j.name for j in alive(world) if j.theirs is False] or ["af-sim-s1-0-1"]
    name = world.rng.choice(ours)
    name = world.rng.choice((name + "x", name.replace("af-sim-", "af-simm-"), name.replace("af-sim-", OTHERS)))
    job_id = world.slurm.create(name, world.now)
    world.slurm.jobs[job_id].theirs = True


def controller_crashes(world: World) -> None:
    for controller in world.controllers:
        if controller.alive:
            controller.crash(world.now + world.rng.choice((0.5, 5.0, 40.0)))
            return


def controller_pauses(world: World) -> None:
    controller = world.rng.choice(world.controllers)
    controller.pause(world.now + world.rng.choice((1.0, 10.0, 60.0)))


def clock_jumps(world: World) -> None:
    """The clock of one controller's host jumps by an hour, and is set right later: it jumps back."""
    controller = world.rng.choice(world.controllers)
    controller.clock_offset = world.rng.choice((3600.0, -3600.0))
    world.later(world.rng.choice((3.0, 30.0, 120.0)), lambda: setattr(controller, "clock_offset", 0.0))


def database_fails(world: World) -> None:
    world.database_fails_until = world.now + world.rng.choice((0.5, 5.0, 30.0))


def shared_folder_fails(world: World) -> None:
    world.folder_fails_until = world.now + world.rng.choice((0.5, 5.0, 30.0))


def database_restored(world: World) -> None:
    """A backup is made now, and is what there is again some time later."""
    backup = world.database.backup()
    world.later(world.rng.choice((10.0, 60.0)), lambda: world.restore(backup))


def files_late(world: World) -> None:
    world.files_late_until = world.now + world.rng.choice((5.0, 30.0))


def files_garbled(world: World) -> None:
    world.files_garbled_until = world.now + world.rng.choice((5.0, 30.0))


def nodes_without_run_dir(world: World) -> None:
    """Jobs that start now leave no file at all, and no claim."""
    world.slurm.blind_until = world.now + world.rng.choice((2.0, 10.0))


def slurmctld_forgets_everything(world: World) -> None:
    if world.rng.random() < 0.3:
        world.reach("all jobs forgotten")
        world.slurm.forget_everything(world.now)


def killed_at_a_boundary(world: World) -> None:
    world.rng.choice(world.controllers).trap = world.rng.choice(BOUNDARIES), "crash"


def paused_at_a_boundary(world: World) -> None:
    world.rng.choice(world.controllers).trap = world.rng.choice(BOUNDARIES), "pause"


def paused_before_an_effect(world: World) -> None:
    """The leader is: while it sleeps another one may be elected."""
    for controller in world.controllers:
        if controller.leads:
            controller.trap = world.rng.choice(EFFECTS), "pause"


FAULTS: tuple[Callable[[World], None], ...] = (
    slurmctld_silent,
    slurmctld_loses_state,
    slurmctld_rolled_back,
    listing_lies,
    listing_lies_for_long,
    accounting_down,
    node_dies,
    node_given_up,
    preempted,
    preempted_with_grace,
    node_drained,
    time_limit,
    suspended,
    engine_dies,
    engine_hangs,
    wrapper_and_guard_killed,
    engine_lies,
    requeued,
    held,
    cancelled_by_hand,
    look_alike,
    controller_crashes,
    controller_pauses,
    clock_jumps,
    database_fails,
    shared_folder_fails,
    files_late,
    files_garbled,
    nodes_without_run_dir,
    slurmctld_forgets_everything,
    killed_at_a_boundary,
    paused_at_a_boundary,
    paused_before_an_effect,
    database_restored,
)

ONLY_WITH_SLOTS = (node_given_up, listing_lies_for_long)
"""What leaves two jobs of a replica alive: only the slot keeps the engine of one of them from running."""

FAULTS_WITHOUT_SLOTS = tuple(fault for fault in FAULTS if fault not in ONLY_WITH_SLOTS)
