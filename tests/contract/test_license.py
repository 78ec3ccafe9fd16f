"""The fake is licensed: what the controller relies on of a Slurm, tried on the simulated one and on a real one.

AI_FACTORY_TEST_SLURM_CONF names the slurm.conf of any other cluster to try it on; --basetemp a folder that its nodes
share.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from controller.core.attempt import SendOutcome
from controller.core.jobs import Job, JobPhase
from controller.ports import UnreadableError
from tests.contract.clusters import AnyCluster, RealCluster, SimulatedCluster


@pytest.fixture(
    params=["simulated", pytest.param("real", marks=[pytest.mark.cluster, pytest.mark.xdist_group("Slurm")])]
)
def cluster(request: pytest.FixtureRequest, tmp_path: Path, other_slurm_conf: str) -> Iterator[AnyCluster]:
    cluster: AnyCluster
    if request.param == "simulated":
        cluster = SimulatedCluster()
    elif other_slurm_conf:
        cluster = RealCluster(other_slurm_conf, tmp_path, None)
    else:
        own = request.getfixturevalue("slurm_cluster")
        cluster = RealCluster(own.conf, tmp_path, own)
    yield cluster
    cluster.close()


async def started(cluster: AnyCluster) -> tuple[str, Job]:
    token = cluster.token()
    sent = await cluster.submit(token)
    assert sent.outcome is SendOutcome.ACCEPTED, sent
    return token, await cluster.seen(token, JobPhase.RUNNING)


async def test_what_is_submitted_is_listed_at_once_and_runs(cluster: AnyCluster) -> None:
    token, before = cluster.token(), cluster.scheduler.next_sequence()
    sent = await cluster.submit(token)
    assert (sent.outcome, sent.message) == (SendOutcome.ACCEPTED, "")
    assert before < sent.sequence < cluster.scheduler.next_sequence()
    assert [(j.job_id, j.token) for j in await cluster.jobs(token)] == [(sent.job_id, token)]
    job = await cluster.seen(token, JobPhase.RUNNING)
    assert (job.state, job.exit_code) == ("RUNNING", None)
    assert job.node is not None
    assert job.node in await cluster.scheduler.addresses()
    assert job.started_at is not None
    assert job.ends_at is not None
    assert job.ends_at > job.started_at


async def test_what_ends_is_listed_for_a_while_and_accounting_knows_it(cluster: AnyCluster) -> None:
    token = cluster.token()
    sent = await cluster.submit(token, exit_code=3)
    assert (await cluster.seen(token, JobPhase.ENDED)).state == "FAILED"

    async def vanished() -> bool | None:
        return not await cluster.jobs(token) or None

    await cluster.until(vanished, "the job to leave the listing")
    known = await cluster.scheduler.ended_jobs([sent.job_id or 0, 999_999])
    assert known is not None
    assert known.keys() == {sent.job_id}
    job = known[sent.job_id or 0]
    assert (job.token, job.phase, job.state, job.exit_code) == (token, JobPhase.ENDED, "FAILED", 3)


async def test_accounting_tells_a_live_job_from_an_ended_one(cluster: AnyCluster) -> None:
    token, job = await started(cluster)

    async def running() -> bool | None:
        known = await cluster.scheduler.ended_jobs([job.job_id])
        assert known is not None
        return (job.job_id in known and known[job.job_id].phase is JobPhase.RUNNING) or None

    await cluster.until(running, "accounting's answer")
    assert [j.phase for j in await cluster.jobs(token)] == [JobPhase.RUNNING]


async def test_a_cancel_needs_the_name_and_the_id(cluster: AnyCluster) -> None:
    (token, job), (other, stays) = await started(cluster), await started(cluster)
    await cluster.scheduler.cancel(other, job.job_id)
    await cluster.scheduler.cancel(token, stays.job_id)
    await cluster.scheduler.cancel(token, 999_999)
    assert [j.phase for j in (*await cluster.jobs(token), *await cluster.jobs(other))] == [JobPhase.RUNNING] * 2
    await cluster.scheduler.cancel(token, job.job_id)
    ended = await cluster.seen(token, JobPhase.ENDED)
    assert (ended.job_id, ended.state) == (job.job_id, "CANCELLED")
    assert [j.phase for j in await cluster.jobs(other)] == [JobPhase.RUNNING]
    await cluster.scheduler.cancel(token, job.job_id)  # once more does no harm


async def test_a_limit_on_its_owners_jobs_holds_one_back_until_another_ends(cluster: AnyCluster) -> None:
    token, first = await started(cluster)
    try:
        cluster.limit_jobs(1)
        other = cluster.token()
        await cluster.submit(other)
        waiting = await cluster.seen(other, JobPhase.PENDING, "QOSMaxJobsPerUserLimit")
        assert (waiting.lacks_room, waiting.is_held, waiting.bar) == (True, False, None)
        await cluster.scheduler.cancel(token, first.job_id)
        await cluster.seen(other, JobPhase.RUNNING)
    finally:
        cluster.limit_jobs(None)


async def test_two_jobs_of_one_token_never_run_together(cluster: AnyCluster) -> None:
    token, first = await started(cluster)
    second = await cluster.submit(token)
    kept_back = await cluster.seen(token, JobPhase.PENDING, "Dependency")
    assert (kept_back.job_id, kept_back.node, kept_back.started_at) == (second.job_id, None, None)
    await cluster.scheduler.cancel(token, kept_back.job_id)
    third = await cluster.submit(token)
    await cluster.seen(token, JobPhase.PENDING, "Dependency")
    await cluster.scheduler.cancel(token, first.job_id)
    assert (await cluster.seen(token, JobPhase.RUNNING)).job_id == third.job_id


async def test_a_held_job_waits_and_says_so(cluster: AnyCluster) -> None:
    token, first = await started(cluster)
    sent = await cluster.submit(token)  # kept back by its twin until it is held
    cluster.hold(sent.job_id or 0)
    held = await cluster.seen(token, JobPhase.PENDING, "JobHeld")
    await cluster.scheduler.cancel(token, first.job_id)
    await cluster.seen(token, JobPhase.ENDED)
    assert [j.reason for j in await cluster.jobs(token) if j.job_id == held.job_id] == [held.reason]
    cluster.release(held.job_id)
    assert (await cluster.seen(token, JobPhase.RUNNING)).job_id == held.job_id


async def test_a_requeued_job_is_pending_again_under_its_id(cluster: AnyCluster) -> None:
    token, job = await started(cluster)
    cluster.requeue(job.job_id)
    again = await cluster.seen(token, JobPhase.PENDING)
    assert (again.job_id, again.node, again.started_at) == (job.job_id, None, None)


async def test_a_suspended_job_keeps_its_node(cluster: AnyCluster) -> None:
    token, job = await started(cluster)
    cluster.suspend(job.job_id)
    assert (await cluster.seen(token, JobPhase.SUSPENDED)).node == job.node
    cluster.resume(job.job_id)
    assert (await cluster.seen(token, JobPhase.RUNNING)).job_id == job.job_id


async def test_a_job_whose_node_fails_ends_with_it(cluster: AnyCluster) -> None:
    token, job = await started(cluster)
    assert job.node is not None
    cluster.node_fails(job.node)
    try:
        assert (await cluster.seen(token, JobPhase.ENDED)).state == "NODE_FAIL"
    finally:
        await cluster.node_returns(job.node)


async def test_only_names_of_this_installation_are_listed(cluster: AnyCluster) -> None:
    token, job = await started(cluster)
    beginning = token.split("-t")[0]
    names = (
        f"{beginning}x-t1-0-1",
        f"x{token}",
        "af-other-s1-0-1",
        f"{token}\x1f\n{job.job_id}\x1f'\"`$(id) é %j",
        f"a t{os.getpid()}x",
    )
    strangers = {cluster.stranger(name) for name in names[:3]}
    listed = (await cluster.scheduler.list_jobs()).jobs
    assert not strangers & {j.job_id for j in listed}
    await cluster.scheduler.cancel(token, min(strangers))
    odd = {cluster.stranger(name) for name in names[3:]}
    assert [j.job_id for j in await cluster.jobs(token)] == [job.job_id]
    known = await cluster.scheduler.ended_jobs([*strangers, *odd])
    assert known is not None
    assert not {j.token for j in known.values()} & {token, *names[:3]}


async def test_a_slurmctld_that_hangs_leaves_the_outcome_open_and_may_make_the_job(cluster: AnyCluster) -> None:
    token = cluster.token()
    cluster.hang()
    sent = await cluster.submit(token)
    assert (sent.outcome, sent.job_id) == (SendOutcome.UNKNOWN, None)
    with pytest.raises(UnreadableError):
        await cluster.scheduler.list_jobs()
    cluster.go_on()

    async def look() -> list[Job] | None:
        return await cluster.jobs(token) or None

    assert len(await cluster.until(look, "the job that nobody acknowledged")) == 1


async def test_a_slurmctld_that_is_gone_says_nothing_and_loses_nothing(cluster: AnyCluster) -> None:
    token, job = await started(cluster)
    other = cluster.token()
    cluster.stop()
    assert (await cluster.submit(other)).outcome is SendOutcome.UNKNOWN
    for ask in (cluster.scheduler.list_jobs(), cluster.scheduler.addresses()):
        with pytest.raises(UnreadableError):
            await ask
    with pytest.raises(UnreadableError):
        await cluster.scheduler.cancel(token, job.job_id)
    cluster.start()
    assert (await cluster.seen(token, JobPhase.RUNNING)).job_id == job.job_id
    assert await cluster.jobs(other) == []


async def test_without_accounting_jobs_are_listed_and_sent_all_the_same(cluster: AnyCluster) -> None:
    token = cluster.token()
    cluster.stop_accounting()
    sent = await cluster.submit(token)
    assert sent.outcome is SendOutcome.ACCEPTED
    assert await cluster.jobs(token)
    with pytest.raises(UnreadableError) as raised:
        await cluster.scheduler.ended_jobs([sent.job_id or 0])
    assert raised.value.reason == "AccountingDown"
    cluster.start_accounting()


async def test_a_node_that_is_drained_is_leaving_while_its_job_goes_on(cluster: AnyCluster) -> None:
    token, job = await started(cluster)
    assert job.node is not None
    assert await cluster.scheduler.leaving({job.node}) == {}
    cluster.drain(job.node)
    try:
        assert await cluster.scheduler.leaving({job.node, "nobody"}) == {job.node: "draining"}
        assert [j.phase for j in await cluster.jobs(token)] == [JobPhase.RUNNING]
    finally:
        cluster.undrain(job.node)
    assert await cluster.scheduler.leaving({job.node}) == {}


async def test_a_job_that_a_maintenance_keeps_back_begins_once_it_is_shortened(cluster: AnyCluster) -> None:
    token = cluster.token()
    assert await cluster.scheduler.maintenances() == ()
    cluster.reserve(240.0)
    try:
        await cluster.submit(token)  # for five minutes
        kept_back = await cluster.seen(token, JobPhase.PENDING, "ReqNodeNotAvail, Reserved for maintenance")
        assert (kept_back.awaits_maintenance, kept_back.time_limit) == (True, 300.0)
        (maintenance,) = await cluster.scheduler.maintenances()
        assert maintenance.ends_at == maintenance.begins_at + 3600.0
        await cluster.scheduler.shorten(token, 3)
        job = await cluster.seen(token, JobPhase.RUNNING)
        assert job.started_at is not None
        assert job.ends_at == job.started_at + 180.0
        assert job.ends_at <= maintenance.begins_at
    finally:
        cluster.call_off()


async def test_nothing_to_shorten_is_a_failure(cluster: AnyCluster) -> None:
    token = cluster.token()
    await cluster.submit(token, exit_code=3)
    await cluster.seen(token, JobPhase.ENDED)
    for name in (token, cluster.token()):
        with pytest.raises(UnreadableError):
            await cluster.scheduler.shorten(name, 1)
