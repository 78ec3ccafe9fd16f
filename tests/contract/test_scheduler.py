"""What the controller relies on of a real Slurm, beside what test_license.py tries on the simulated one too."""

from __future__ import annotations

import asyncio
import itertools
import os
import subprocess
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import pytest

from api.contract.launch import Resources, Submission
from controller.core.attempt import SendOutcome, Sent
from controller.core.jobs import Job, JobPhase
from controller.ports import UnreadableError
from controller.slurm.environment import reading_environment, submitting_environment
from controller.slurm.runner import ProcessRunner
from controller.slurm.scheduler import SlurmScheduler

if TYPE_CHECKING:
    from tests.slurm_cluster import SlurmCluster

pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group("Slurm")]

PREFIX = "af-k3x9q2-"
LEFT_IN_THE_ENVIRONMENT = {
    "SBATCH_ARRAY_INX": "1-3",
    "SBATCH_EXPORT": "NONE",
    "SBATCH_HOLD": "1",
    "SBATCH_REQUEUE": "1",
    "SBATCH_GET_USER_ENV": "1",
    "SQUEUE_FORMAT": "%i",
    "SQUEUE_STATES": "SUSPENDED",
    "SQUEUE_PARTITION": "none",
    "SACCT_FORMAT": "jobid",
    "SCANCEL_STATE": "SUSPENDED",
    "SLURM_EXIT_ERROR": "0",
    "SLURM_TIME_FORMAT": "relative",
    "DATABASE_PASSWORD": "hunter2",
}
SLEEP = "#!/bin/sh\nexec sleep 300\n"
Seen = TypeVar("Seen")
_numbers = itertools.count(1)


async def until(look: Callable[[], Awaitable[Seen | None]], what: str, seconds: float = 60.0) -> Seen:
    """Look until there is something to see."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if (seen := await look()) is not None:
            return seen
        await asyncio.sleep(0.05)
    pytest.fail(f"{what}: not within {seconds} s")


class Slurm:
    """A cluster, a scheduler in front of it, and short words for what the tests do with them."""

    def __init__(self, cluster: SlurmCluster, folder: Path) -> None:
        self.cluster = cluster
        self.folder = folder
        self.scheduler = self.another()

    def another(self, conf: str = "", path: str = "", seconds: float = 40.0) -> SlurmScheduler:
        base = os.environ | LEFT_IN_THE_ENVIRONMENT | ({"PATH": path} if path else {})
        where = conf or self.cluster.conf
        runner = ProcessRunner(
            reading_environment(base, where), submitting_environment(base, where), reading_seconds=seconds
        )
        return SlurmScheduler(runner, PREFIX)

    def token(self) -> str:
        return f"{PREFIX}t{next(_numbers)}-0-1"

    async def submit(
        self,
        token: str,
        text: str = SLEEP,
        scheduler: SlurmScheduler | None = None,
        arguments: tuple[str, ...] = (),
        comment: str = "a test",
        folder: str = "",
        after: int | None = None,
        exclude: tuple[str, ...] = (),
        **resources: object,
    ) -> Sent:
        script = self.folder / "job.sh"
        script.write_text(text)
        asked = Resources(**({"memory_mb": 100, "time_limit": 5} | resources))  # type: ignore[arg-type]
        submission = Submission(
            token=token,
            resources=asked,
            folder=str(self.folder / folder),
            script=str(script),
            arguments=arguments,
            comment=comment,
            warning=60,
            exclude=exclude,
            after=after,
        )
        return await (scheduler or self.scheduler).submit(submission)

    async def started(self, token: str) -> Job:
        sent = await self.submit(token)
        assert sent.outcome is SendOutcome.ACCEPTED, sent
        return await self.seen(token, JobPhase.RUNNING)

    async def jobs(self, token: str) -> list[Job]:
        return [job for job in (await self.scheduler.list_jobs()).jobs if job.token == token]

    async def seen(self, token: str, *phases: JobPhase) -> Job:
        async def look() -> Job | None:
            return next((job for job in await self.jobs(token) if job.phase in phases), None)

        return await until(look, f"{token} {phases}")

    async def gone(self, token: str) -> None:
        async def look() -> bool | None:
            return all(job.phase is JobPhase.ENDED for job in await self.jobs(token)) or None

        await until(look, f"the end of {token}")

    def command(self, *argv: str) -> str:
        environment = os.environ | {"SLURM_CONF": self.cluster.conf}
        return subprocess.run(argv, env=environment, check=True, capture_output=True, text=True, timeout=60).stdout


@pytest.fixture
def slurm(slurm_cluster: SlurmCluster, tmp_path: Path) -> Iterator[Slurm]:
    slurm = Slurm(slurm_cluster, tmp_path)
    yield slurm
    slurm.command("scancel", "--me")


@pytest.fixture
def troubled(slurm: Slurm) -> Iterator[Slurm]:
    """For tests that stop daemons: whatever happens, the next test finds them up."""
    yield slurm
    slurm.cluster.repair()


async def test_a_running_job_has_a_node_with_an_address_and_its_times(slurm: Slurm) -> None:
    began = time.time()
    job = await slurm.started(slurm.token())
    assert job.state == "RUNNING"
    assert job.node in {"node1", "node2"}
    assert (await slurm.scheduler.addresses())[job.node] == "127.0.0.1"
    assert job.started_at is not None
    assert began - 2 <= job.started_at <= time.time() + 2
    assert job.ends_at == job.started_at + 300


async def test_the_batch_host_of_several_nodes(slurm: Slurm) -> None:
    token = slurm.token()
    await slurm.submit(token, nodes=2)
    assert (await slurm.seen(token, JobPhase.RUNNING)).node == "node1"


async def test_what_a_job_finds_in_its_environment(slurm: Slurm) -> None:
    """Nothing of the controller's, no login shell was run for it, and one job in spite of SBATCH_ARRAY_INX."""
    token = slurm.token()
    await slurm.submit(token, '#!/bin/sh\nenv > env.part\necho "arguments=$*" >> env.part\nmv env.part env\n',
                       arguments=("a b", "$HOME"))  # fmt: skip

    async def look() -> list[str] | None:
        path = slurm.folder / "env"
        return path.read_text().splitlines() if path.exists() else None

    lines = await until(look, "the job's environment")
    names = {line.partition("=")[0] for line in lines}
    assert {"PATH", "SLURM_JOB_ID", "SLURM_JOB_NAME", "LC_ALL"} <= names
    assert not names & {"DATABASE_PASSWORD", "SLURM_ARRAY_TASK_ID", "SLURM_GET_USER_ENV", "SLURM_TIME_FORMAT"}
    assert not any(name.startswith(("SBATCH_", "SQUEUE_", "PYTEST_")) for name in names)
    assert f"SLURM_JOB_NAME={token}" in lines
    assert "arguments=a b $HOME" in lines
    assert len(await slurm.jobs(token)) <= 1


async def test_jobs_of_one_name_wait_for_each_other_beside_another_one(slurm: Slurm) -> None:
    """A job that waits for an image is kept apart from its twin as any other."""
    image, token = await slurm.started(slurm.token()), slurm.token()
    twins = [(await slurm.submit(token, after=image.job_id)).job_id for _ in range(2)]
    waiting = await slurm.jobs(token)
    assert sorted(job.job_id for job in waiting) == twins
    assert {(job.phase, job.reason) for job in waiting} == {(JobPhase.PENDING, "Dependency")}
    slurm.command("scancel", str(image.job_id))
    running = await slurm.seen(token, JobPhase.RUNNING)
    (other,) = (job for job in await slurm.jobs(token) if job.job_id != running.job_id)
    assert (other.phase, other.reason) == (JobPhase.PENDING, "Dependency")
    assert "Dependency=singleton(unfulfilled)" in slurm.command("scontrol", "show", "job", str(other.job_id))
    slurm.command("scancel", str(running.job_id))
    assert (await slurm.seen(token, JobPhase.RUNNING)).job_id == other.job_id


async def test_a_job_that_slurm_does_not_know_is_not_waited_for(slurm: Slurm) -> None:
    token = slurm.token()
    sent = await slurm.submit(token, after=60_000)
    assert sent.outcome is SendOutcome.ACCEPTED, sent
    await slurm.seen(token, JobPhase.RUNNING)


async def test_gpus(slurm: Slurm) -> None:
    token = slurm.token()
    sent = await slurm.submit(token, gpu=1, gpu_type="a100")
    assert sent.outcome is SendOutcome.ACCEPTED, sent
    await slurm.seen(token, JobPhase.RUNNING)
    assert "gpu:a100:1" in slurm.command("squeue", "-h", "-j", str(sent.job_id), "-o", "%b")


async def test_output_goes_where_the_path_says_literally(slurm: Slurm) -> None:
    token = slurm.token()
    (slurm.folder / "100% of %j é").mkdir()
    await slurm.submit(token, "#!/bin/sh\necho hello\n", folder="100% of %j é")
    path = slurm.folder / "100% of %j é" / "stdout.log"

    async def look() -> bool | None:
        return (path.exists() and path.read_text() == "hello\n") or None

    await until(look, "the job's output")


async def test_hostile_names_and_comments_do_no_harm(slurm: Slurm) -> None:
    token = slurm.token()
    forged = f"x\x1f\n7\x1fRUNNING\x1fnode1\x1f1\x1f2\x1f{token}\x1fNone\x1f\n\x1e'\"`$(id) é %j"
    (slurm.folder / "stranger.sh").write_text(SLEEP)
    stranger = int(
        slurm.command(
            "sbatch", "--parsable", "--hold", "-o/dev/null", f"--job-name={forged}", str(slurm.folder / "stranger.sh")
        )
    )
    sent = await slurm.submit(token, comment='a\nb "c" $(id) `d` é \x1f ' + "long" * 500)
    assert sent.outcome is SendOutcome.ACCEPTED, sent
    assert [job.job_id for job in await slurm.jobs(token)] == [sent.job_id]
    assert stranger not in {job.job_id for job in (await slurm.scheduler.list_jobs()).jobs}

    async def look() -> bool | None:
        known = await slurm.scheduler.ended_jobs([stranger, sent.job_id or 0])
        assert known is not None
        return (stranger not in known and sent.job_id in known) or None

    await until(look, "accounting's answer")


async def test_a_cancel_sends_term_to_the_script_and_its_children_then_kills(slurm: Slurm) -> None:
    token = slurm.token()
    stubborn = (
        "#!/bin/bash\ntrap 'echo script >> terms' TERM\n"
        "(trap 'echo child >> terms' TERM; touch ready; while :; do sleep 0.1; done) &\nwhile :; do wait; done\n"
    )
    sent = await slurm.submit(token, stubborn)
    await slurm.seen(token, JobPhase.RUNNING)

    async def ready() -> bool | None:
        return (slurm.folder / "ready").exists() or None

    await until(ready, "the job's start")
    await slurm.scheduler.cancel(token, sent.job_id or 0)
    await slurm.seen(token, JobPhase.COMPLETING)
    await slurm.gone(token)  # KillWait later
    assert sorted((slurm.folder / "terms").read_text().split()) == ["child", "script"]


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"partition": "nope"}, "change `partition`"),
        ({"account": "nope"}, "change `account`"),
        ({"qos": "nope"}, "change `qos`"),
        ({"constraint": "nope"}, "change `constraint`"),
        ({"reservation": "nope"}, "change `reservation`"),
        ({"gres": "nope:1"}, "change `gpu`"),
        ({"gpu": 1, "gpu_type": "nope"}, "ask for fewer"),
        ({"memory_mb": 900_000}, "ask for fewer"),
        ({"time_limit": "1x1"}, "change `time_limit`"),
        ({"extra_options": ("--no-such-option",)}, "extra_options"),
        ({"extra_options": ("--licenses=nope:1",)}, "change the option"),
    ],
)
async def test_what_slurm_refuses_is_rejected(slurm: Slurm, wrong: dict[str, object], told: str) -> None:
    token = slurm.token()
    sent = await slurm.submit(token, **wrong)
    assert (sent.outcome, sent.job_id) == (SendOutcome.REJECTED, None), sent
    assert told in sent.message
    # some refusals leave a record behind: FAILED, BadConstraints
    assert all(job.phase is JobPhase.ENDED for job in await slurm.jobs(token))


async def test_a_submit_limit_defers(slurm: Slurm) -> None:
    sent = [await slurm.submit(slurm.token(), qos="capped") for _ in range(4)]
    assert [each.outcome for each in sent] == [SendOutcome.ACCEPTED] * 3 + [SendOutcome.DEFERRED]
    assert "QOSMaxSubmitJobPerUserLimit" in sent[3].message


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"partition": "short", "time_limit": 600}, "PartitionTimeLimit"),
        ({"partition": "down"}, "PartitionDown"),
    ],
)
async def test_what_slurm_accepts_though_it_can_not_run(slurm: Slurm, wrong: dict[str, object], reason: str) -> None:
    token = slurm.token()
    sent = await slurm.submit(token, **wrong)
    assert sent.outcome is SendOutcome.ACCEPTED, sent
    await waits(slurm, token, reason)


async def test_a_time_limit_that_an_administrator_changes_moves_the_end(slurm: Slurm) -> None:
    token = slurm.token()
    job = await slurm.started(token)
    assert job.started_at is not None
    for minutes in (2, 30):
        slurm.command("scontrol", "update", f"JobId={job.job_id}", f"TimeLimit={minutes}")
        (told,) = await slurm.jobs(token)
        assert told.ends_at == job.started_at + minutes * 60
    slurm.command("scancel", str(job.job_id))


async def test_a_job_is_kept_off_a_node_unless_no_other_would_do(slurm: Slurm) -> None:
    nodes = sorted(slurm.command("sinfo", "-h", "-N", "-o", "%N").split())
    others = tuple(dict.fromkeys(node for node in nodes if node != nodes[0]))
    await slurm.submit(first := slurm.token(), exclude=others)
    assert (await slurm.seen(first, JobPhase.RUNNING)).node == nodes[0]
    sent = await slurm.submit(second := slurm.token(), exclude=tuple(dict.fromkeys(nodes)))
    assert sent.outcome is SendOutcome.ACCEPTED, sent
    await slurm.seen(second, JobPhase.RUNNING)


async def test_what_no_node_has_is_rejected_or_waits_for_ever(slurm: Slurm) -> None:
    """Slurm 22.05 accepts a job of more CPUs than any node has; 24.11 refuses it at once."""
    token = slurm.token()
    sent = await slurm.submit(token, cpu=5000)
    if sent.outcome is SendOutcome.ACCEPTED:
        await waits(slurm, token, "PartitionConfig")
    else:
        assert (sent.outcome, sent.job_id) == (SendOutcome.REJECTED, None), sent
        assert "ask for fewer" in sent.message


async def waits(slurm: Slurm, token: str, reason: str) -> None:
    """Wait until a job is queued for that reason."""

    async def look() -> Job | None:
        return next((job for job in await slurm.jobs(token) if job.reason == reason), None)

    job = await until(look, reason)
    assert (job.phase, job.node, job.started_at, job.ends_at) == (JobPhase.PENDING, None, None, None)


async def test_a_requeued_job_is_pending_again_under_its_id(slurm: Slurm) -> None:
    """`--no-requeue` makes Slurm refuse it, to an administrator too, until the job is changed."""
    token = slurm.token()
    job = await slurm.started(token)
    with pytest.raises(subprocess.CalledProcessError):
        slurm.command("scontrol", "requeue", str(job.job_id))
    slurm.command("scontrol", "update", f"jobid={job.job_id}", "requeue=1")
    slurm.command("scontrol", "requeue", str(job.job_id))
    again = await slurm.seen(token, JobPhase.PENDING)
    assert (again.job_id, again.node, again.started_at) == (job.job_id, None, None)


async def test_a_submission_to_a_hung_slurmctld_is_open_and_may_still_create_its_job(troubled: Slurm) -> None:
    slurm, token = troubled, troubled.token()
    slurm.cluster.control("pause", "slurmctld")
    sent, listing = await asyncio.gather(
        slurm.submit(token), slurm.scheduler.list_jobs(), return_exceptions=True
    )  # fmt: skip
    assert isinstance(sent, Sent)
    assert (sent.outcome, sent.job_id) == (SendOutcome.UNKNOWN, None)
    assert isinstance(listing, UnreadableError)
    assert listing.reason == "SlurmTimeout"
    slurm.cluster.control("continue", "slurmctld")
    job = await slurm.seen(token, JobPhase.PENDING, JobPhase.RUNNING)  # measured: it always did
    assert [each.job_id for each in await slurm.jobs(token)] == [job.job_id]


async def test_without_slurmctld_nothing_can_be_read_and_nothing_is_lost(troubled: Slurm) -> None:
    slurm, token = troubled, troubled.token()
    job = await slurm.started(token)
    slurm.cluster.control("stop", "slurmctld")
    listing, addresses, sent, cancelled = await asyncio.gather(
        slurm.scheduler.list_jobs(),
        slurm.scheduler.addresses(),
        slurm.submit(slurm.token()),
        slurm.scheduler.cancel(token, job.job_id),
        return_exceptions=True,
    )
    assert isinstance(sent, Sent)
    assert sent.outcome is SendOutcome.UNKNOWN
    for trouble in (listing, addresses, cancelled):
        assert isinstance(trouble, UnreadableError), trouble
        assert trouble.reason == "SlurmUnreachable"
        assert "slurmctld" in trouble.message
    slurm.cluster.control("start", "slurmctld")
    assert (await slurm.seen(token, JobPhase.RUNNING)).job_id == job.job_id


async def test_without_slurmdbd_jobs_are_listed_and_sent_all_the_same(troubled: Slurm) -> None:
    slurm, token = troubled, troubled.token()
    slurm.cluster.control("stop", "slurmdbd")
    sent = await slurm.submit(token)
    assert sent.outcome is SendOutcome.ACCEPTED
    assert await slurm.jobs(token)
    with pytest.raises(UnreadableError) as raised:
        await slurm.scheduler.ended_jobs([sent.job_id or 0])
    assert raised.value.reason == "AccountingDown"


async def test_without_munged_nothing_can_be_read(troubled: Slurm) -> None:
    slurm = troubled
    slurm.cluster.control("stop", "munged")
    listing, sent = await asyncio.gather(
        slurm.scheduler.list_jobs(), slurm.submit(slurm.token()), return_exceptions=True
    )
    assert isinstance(listing, UnreadableError)
    assert listing.reason == "MungeDown"
    assert isinstance(sent, Sent)
    assert sent.outcome is SendOutcome.UNKNOWN


async def test_a_site_without_accounting(slurm: Slurm) -> None:
    conf = slurm.folder / "slurm.conf"
    lines = Path(slurm.cluster.conf).read_text().splitlines(keepends=True)
    conf.write_text("".join(line for line in lines if not line.startswith("Accounting")))
    assert await slurm.another(conf=str(conf)).ended_jobs([1]) is None


async def test_a_configuration_that_is_not_there(slurm: Slurm) -> None:
    """Slurm's commands wait a minute for the file to turn up."""
    with pytest.raises(UnreadableError) as raised:
        await slurm.another(conf=str(slurm.folder / "nope.conf"), seconds=4.0).list_jobs()
    assert raised.value.reason == "SlurmNotConfigured"


async def test_a_host_without_slurm(slurm: Slurm) -> None:
    scheduler = slurm.another(path=str(slurm.folder))
    with pytest.raises(UnreadableError) as raised:
        await scheduler.list_jobs()
    assert raised.value.reason == "SlurmMissing"
    assert "install" in raised.value.message
    sent = await slurm.submit(slurm.token(), scheduler=scheduler)
    assert sent.outcome is SendOutcome.DEFERRED
