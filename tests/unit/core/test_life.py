"""The life of a service, by the one word that clients read."""

from __future__ import annotations

import itertools

import pytest

from api.contract.status import word
from controller.core.attempt import SendOutcome
from controller.core.desired import Refusal
from controller.core.job_files import JobExit
from controller.core.jobs import JobPhase

from .builders import JOB_SPEC, LIMITS, spec, token
from .world import World


def test_before_the_first_look_it_is_pending() -> None:
    assert word(wanted=True, conditions=()) == "pending"


def test_from_post_to_running_to_delete() -> None:
    world = World()
    words = [world.word]
    for step in (world.look, lambda: world.run("image"), lambda: world.run("starting"), world.serve):
        step()
        words.append(world.word)
    world.wish(running=False)
    words.append(world.word)
    assert words == ["pending", "pending", "building", "starting", "running", "cancelled"]
    assert world.alive() == []
    assert world.newest.gone_at is not None
    assert world.endpoints == ()


def test_its_history_is_told_in_order_and_once() -> None:
    world = World()
    world.look()
    world.serve()
    world.wish(running=False)
    world.wait(120)
    told = [e.reason for e in world.events]
    assert told == ["Submitting", "Submitted", "Started", "Ready", "Stopped", "Stopped"]


def test_a_service_at_rest_asks_for_nothing() -> None:
    world = World()
    world.look()
    world.serve()
    assert world.look().look_again_at is None


def test_running_means_that_it_answers_now() -> None:
    world = World()
    world.look()
    world.serve()
    world.probe(ready=False, failures=2)
    assert world.word == "starting"
    world.probe(ready=True)
    assert world.word == "running"


@pytest.mark.parametrize("state", ["NODE_FAIL", "PREEMPTED", "TIMEOUT", "CANCELLED", "FAILED"])
def test_a_service_outlives_its_jobs(state: str) -> None:
    world = World()
    world.look()
    world.serve()
    world.wait(LIMITS.steady_after)
    world.terminate(world.job)
    world.put(JobPhase.ENDED, state=state)
    world.look()
    world.wait(5)
    assert world.word == "pending"
    world.serve()
    assert (world.word, world.newest.incarnation) == ("running", 2)


def test_a_requeued_job_is_replaced() -> None:
    world = World()
    world.look()
    world.serve()
    world.terminate(world.job)
    world.put(JobPhase.PENDING)
    world.look()
    world.wait(5)
    assert [a.outcome for a in world.attempts.values()] == ["Requeued", None]
    assert [j.state for j in world.jobs.values()] == ["CANCELLED", "PENDING"]


def test_a_job_that_slurmctld_forgot_to_be_running_is_replaced_once_its_engine_is_silent() -> None:
    world = World()
    world.look()
    world.serve()
    first = world.job
    world.put(JobPhase.PENDING)
    world.look()
    for _ in range(20):
        world.wait(5)
        world.probe(first, ready=True)
    assert [a.outcome for a in world.attempts.values()] == ["Requeued"], "nothing has told its engine to end yet"
    world.probe(first, ready=False, failures=1)
    world.wait(5)
    assert [a.outcome for a in world.attempts.values()] == ["Requeued", None]


def test_one_that_never_starts_fails_and_a_change_gives_it_another_chance() -> None:
    world = World(spec=spec(max_failures=3))
    world.look()
    for _ in range(3):
        world.run("starting")
        world.end("FAILED", exit_=JobExit(code=1, reason="EngineExited", message="No such model."))
        world.wait(15)
    assert world.word == "failed"
    assert len(world.jobs) == 3
    world.wait(600)
    assert len(world.jobs) == 3
    world.wish(digest="d2")
    assert (world.word, len(world.jobs)) == ("pending", 4)
    world.serve()
    assert world.word == "running"


def test_what_slurm_refuses_fails_at_once_and_is_not_sent_again() -> None:
    world = World()
    world.answer = SendOutcome.REJECTED
    world.look()
    world.wait(3600)
    assert (world.word, len(world.sent)) == ("failed", 1)
    world.answer = SendOutcome.ACCEPTED
    world.wish(digest="d2")
    assert (world.word, len(world.jobs)) == ("pending", 1)


def test_what_slurm_puts_off_is_sent_again_ever_more_rarely_until_it_is_taken() -> None:
    world = World()
    world.answer = SendOutcome.DEFERRED
    world.look()
    world.wait(3600)
    times = [a.intent_at for a in world.attempts.values()]
    pauses = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert pauses[0] <= 4
    assert LIMITS.backoff_most <= pauses[-1] <= LIMITS.backoff_most * 1.25 + 1
    assert world.word == "pending"
    world.answer = SendOutcome.ACCEPTED
    world.wait(LIMITS.backoff_most * 1.25 + 1)
    assert len(world.jobs) == 1


def test_an_sbatch_that_never_answered_and_made_nothing_is_settled_and_then_tried_anew() -> None:
    world = World()
    world.answer = SendOutcome.UNKNOWN
    world.look()
    world.answer = SendOutcome.ACCEPTED
    world.wait(LIMITS.absence_grace - 1)
    assert len(world.attempts) == 1
    world.wait(10)
    assert [a.outcome for a in world.attempts.values()] == ["NeverStarted", None]


def test_a_job_completes_and_stays_completed() -> None:
    world = World(spec=JOB_SPEC)
    world.look()
    world.run("starting")
    assert world.word == "running"
    world.end("COMPLETED", exit_=JobExit(code=0, reason="EngineExited", message=""))
    world.wait(600)
    assert (world.word, len(world.jobs)) == ("completed", 1)


def test_a_refused_service_is_failed_until_it_is_mended() -> None:
    world = World()
    launch = world.wanted.spec
    world.wish(spec=None, digest="", refusal=Refusal(reason="BadRecipe", message="No such recipe."))
    assert (world.word, world.jobs) == ("failed", {})
    world.wish(spec=launch, digest="d1", refusal=None)
    assert (world.word, len(world.jobs)) == ("pending", 1)


def test_a_refused_change_leaves_it_serving_under_its_endpoint() -> None:
    world = World()
    launch = world.wanted.spec
    world.look()
    world.serve()
    before = world.endpoints
    world.wish(spec=None, digest="", refusal=Refusal(reason="BadConfig", message="Bad."))
    assert world.word == "failed"
    assert (world.newest.ready, world.endpoints) == (True, before)
    world.wish(spec=launch, digest="d1", refusal=None)
    assert (world.word, len(world.jobs)) == ("running", 1)


@pytest.mark.parametrize(("surge", "least", "most"), [(1, 3, 4), (2, 3, 5), (0, 2, 3)])
def test_a_change_is_rolled_out_with_no_more_jobs_and_no_fewer_replicas_than_said(
    surge: int, least: int, most: int
) -> None:
    world = World(replicas=3, spec=spec(surge=surge))
    world.look()
    world.serve_all()
    world.wish(digest="d2")
    for _ in range(2000):
        assert world.status.ready_replicas >= least
        assert len(world.alive()) <= most
        assert world.word == "running"
        world.serve_all()
        world.wait(1)
        if all(a.digest == "d2" for a in world.attempts.values() if a.open):
            break
    world.serve_all()
    ready = [a.digest for a in world.attempts.values() if a.ready]
    assert (ready, len(world.jobs)) == (["d2"] * 3, 6)


def test_a_change_of_replicas_alone_restarts_nothing() -> None:
    world = World(replicas=2)
    world.look()
    world.serve_all()
    for replicas in (4, 2, 3):
        world.wish(replicas=replicas)
        world.serve_all()
        world.wait(world.limits.drain_most + 1)
    assert {a.outcome for a in world.attempts.values()} == {None, "ScaledDown"}
    assert [a.token for a in world.attempts.values() if a.open][:2] == [token(0, 1), token(1, 1)]


def test_scaling_up_and_down_leaves_no_job_behind() -> None:
    world = World(replicas=1)
    world.look()
    for replicas in (4, 2, 0, 3):
        world.wish(replicas=replicas)
        world.wait(2)
        assert len(world.alive()) == replicas
    world.wish(running=False)
    assert world.alive() == []
