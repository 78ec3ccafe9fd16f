import contextlib
import os
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from api.contract.launch import Resources, Submission
from controller.core.attempt import SendOutcome
from controller.core.jobs import Bar, JobPhase
from controller.ports import UnreadableError
from controller.slurm.runner import Completed, NotStartedError
from controller.slurm.scheduler import IDS_AT_ONCE, SlurmScheduler

PREFIX = "af-k3x9q2-"
SUBMISSION = Submission(
    token=PREFIX + "a-0-1", resources=Resources(), folder="/run", script="/job.sh", comment="", warning=0
)
Answer = Callable[[tuple[str, ...]], Completed]


class PlayedRunner:
    """Answers as it is told, and remembers what it was asked."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.asked: list[tuple[str, ...]] = []

    async def read(self, argv: tuple[str, ...]) -> Completed:
        self.asked.append(argv)
        return self.answer(argv)

    change = read


def ended(exit_code: int | None = 0, stdout: str = "", stderr: str = "") -> Answer:
    return lambda argv: Completed(argv=argv, exit_code=exit_code, stdout=stdout, stderr=stderr)


def rows(*fields: tuple[str, ...], stderr: str = "", exit_code: int = 0) -> Answer:
    """Print a header and the rows with the mark that was asked for."""

    def answer(argv: tuple[str, ...]) -> Completed:
        header = ("NAME",) * {"squeue": 8, "sacct": 8, "sinfo": 2}[argv[0]]
        asked = argv[-1] if argv[0] != "sacct" else next(a for a in argv if a.startswith("--delimiter="))
        mark = "\x1f" + asked.split("\x1f")[1] + "\x1f"
        text = "".join("".join(field + mark for field in row) + "\n" for row in (header, *fields))
        return Completed(argv=argv, exit_code=exit_code, stdout=text, stderr=stderr)

    return answer


def missing(argv: tuple[str, ...]) -> Completed:
    raise NotStartedError(argv[0], FileNotFoundError(2, "No such file or directory"))


def short(argv: tuple[str, ...]) -> Completed:
    raise NotStartedError(argv[0], OSError(24, "Too many open files"))


def scheduler(answer: Answer) -> tuple[SlurmScheduler, PlayedRunner]:
    runner = PlayedRunner(answer)
    return SlurmScheduler(runner, PREFIX), runner


async def test_listing() -> None:
    slurm, runner = scheduler(
        rows(
            ("7", "RUNNING", "n1", "100", "400", PREFIX + "a-0-1", "None", "5:00"),
            ("8", "RUNNING", "n1", "100", "400", "another", "None", "5:00"),
        )
    )
    assert [job.job_id for job in (await slurm.list_jobs()).jobs] == [7]
    await slurm.list_jobs()
    assert runner.asked[0] != runner.asked[1]  # the mark is drawn afresh


RECORDED = Path(__file__).parent / "samples" / "22.05"


def with_limits(*listed: tuple[str, ...], hidden: bool = False) -> Answer:
    """Answer squeue with these rows, and scontrol as it was recorded."""

    def answer(argv: tuple[str, ...]) -> Completed:
        if argv[0] == "squeue":
            return rows(*listed)(argv)
        name = "job-QOSMaxGRESPerUser" if "job" in argv else "limits-gpu1"
        return ended(1 if hidden else 0, "" if hidden else (RECORDED / f"scontrol-{name}.txt").read_text())(argv)

    return answer


def waiting(number: str, reason: str) -> tuple[str, ...]:
    return (number, "PENDING", "n/a", "N/A", "N/A", f"{PREFIX}a-0-{number}", reason, "1:00:00")


async def test_a_job_above_a_limit_on_many_is_told_from_one_that_waits_for_others() -> None:
    slurm, runner = scheduler(with_limits(waiting("5", "QOSMaxGRESPerUser"), waiting("6", "Resources")))
    (barred, free) = (await slurm.list_jobs()).jobs
    assert (barred.bar, free.bar) == (Bar.OVER_LIMIT, None)
    assert barred.advice.startswith("It asks for gres/gpu=2, and the QOS gpu1 may have gres/gpu=1 in all: lower")
    assert [argv[0] for argv in runner.asked] == ["squeue", "scontrol", "scontrol"]
    assert (await slurm.list_jobs()).jobs == (barred, free)
    assert len(runner.asked) == 4, "each job is asked about once"


async def test_one_job_a_reading_is_asked_about() -> None:
    slurm, runner = scheduler(with_limits(*(waiting(str(number), "AssocGrpGRES") for number in range(5)), hidden=True))
    for _ in range(8):
        assert {job.bar for job in (await slurm.list_jobs()).jobs} == {None}
    assert Counter(argv[0] for argv in runner.asked) == {"squeue": 8, "scontrol": 5}


async def test_a_host_without_scontrol_reads_all_the_same() -> None:
    listing = with_limits(waiting("5", "AssocGrpGRES"))
    slurm, _ = scheduler(lambda argv: missing(argv) if argv[0] == "scontrol" else listing(argv))
    assert [job.bar for job in (await slurm.list_jobs()).jobs] == [None]


NO_NODE = "sbatch: error: Batch job submission failed: Requested node configuration is not available"


@pytest.mark.parametrize(
    ("stderr", "tries", "outcome"),
    [
        (NO_NODE, 2, SendOutcome.ACCEPTED),
        ("sbatch: error: Batch job submission failed: Socket timed out on send/recv operation", 1, SendOutcome.UNKNOWN),
        ("sbatch: error: QOSMaxSubmitJobPerUserLimit", 1, SendOutcome.DEFERRED),
    ],
)
async def test_only_what_slurm_refused_for_good_is_sent_again_without_what_was_to_be_left_out(
    stderr: str, tries: int, outcome: SendOutcome
) -> None:
    def answer(argv: tuple[str, ...]) -> Completed:
        kept_off = any(word.startswith("--exclude") for word in argv)
        return ended(1, stderr=stderr)(argv) if kept_off else ended(0, "7\n")(argv)

    slurm, runner = scheduler(answer)
    sent = await slurm.submit(replace(SUBMISSION, exclude=("n1",)))
    assert (len(runner.asked), sent.outcome) == (tries, outcome)


async def test_what_is_refused_with_nothing_left_out_is_sent_once() -> None:
    slurm, runner = scheduler(ended(1, stderr=NO_NODE))
    assert (await slurm.submit(SUBMISSION)).outcome is SendOutcome.REJECTED
    assert len(runner.asked) == 1


def test_the_prefix_must_say_something() -> None:
    with pytest.raises(ValueError, match="every job"):
        SlurmScheduler(PlayedRunner(ended()), "")


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (
            ended(1, "", "slurm_load_jobs error: Unable to contact slurm controller (connect failure)"),
            "SlurmUnreachable",
        ),
        (ended(0, "", "squeue: error: something"), "SlurmFailed"),
        (ended(None), "SlurmTimeout"),
        (ended(0, "garbage"), "SlurmGarbled"),
        (ended(0, ""), "SlurmGarbled"),
        (ended(0, "", "slurm_load_partitions: Access/permission denied\n"), "PermissionDenied"),
        (rows(exit_code=1), "SlurmFailed"),
        (missing, "SlurmMissing"),
    ],
)
async def test_what_can_not_be_read_is_never_an_empty_listing(answer: Answer, reason: str) -> None:
    slurm, _ = scheduler(answer)
    for reading in (slurm.list_jobs(), slurm.addresses(), slurm.ended_jobs([1])):
        with pytest.raises(UnreadableError) as raised:
            await reading
        assert raised.value.reason == reason


NOISE = """squeue: error: Ignoring ControlMachine since SlurmctldHost is set.
slurm_load_partitions: Access/permission denied
"""


async def test_a_header_proves_a_listing_whatever_is_complained_of_beside_it() -> None:
    slurm, _ = scheduler(rows(stderr=NOISE))
    assert (await slurm.list_jobs()).jobs == ()
    assert await slurm.addresses() == {}
    assert await slurm.ended_jobs([1]) == {}


async def test_what_is_complained_of_is_written_down_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    slurm, _ = scheduler(rows(stderr=NOISE))
    for _ in range(3):
        await slurm.list_jobs()
    assert [record.said for record in caplog.records] == [NOISE.strip()]  # type: ignore[attr-defined]


async def test_what_is_said_instead_of_an_answer_is_written_down_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    slurm, runner = scheduler(ended(1, "", "sinfo: error: a plugin of the site complains"))
    for answer in (runner.answer, runner.answer, rows()):
        runner.answer = answer
        with contextlib.suppress(UnreadableError):
            await slurm.addresses()
    assert [record.said for record in caplog.records] == ["sinfo: error: a plugin of the site complains"]  # type: ignore[attr-defined]


async def test_what_is_complained_of_says_why_an_answer_can_not_be_read() -> None:
    slurm, _ = scheduler(ended(0, "", "squeue: error: Unable to contact slurm controller (connect failure)"))
    with pytest.raises(UnreadableError, match=r"slurmctld running.*begins without a header") as raised:
        await slurm.list_jobs()
    assert raised.value.reason == "SlurmUnreachable"


async def test_accounting_asks_in_bites_for_this_user_only() -> None:
    slurm, runner = scheduler(rows(("5", "FAILED", "3:0", "None", "n1", "100", "200", PREFIX + "a-0-1")))
    known = await slurm.ended_jobs(range(1, IDS_AT_ONCE + 2))
    assert known is not None
    assert (known[5].exit_code, known[5].phase) == (3, JobPhase.ENDED)
    assert len(runner.asked) == 2
    assert all(f"--user={os.getuid()}" in argv for argv in runner.asked)


async def test_accounting_is_not_bothered_for_nothing() -> None:
    slurm, runner = scheduler(rows())
    assert await slurm.ended_jobs([]) == {}
    assert runner.asked == []


@pytest.mark.parametrize("name", ["allocation", "somebody-else", "af-zzzzzz-a-0-1"])
async def test_rows_under_other_names_are_not_ours(name: str) -> None:
    slurm, _ = scheduler(rows(("5", "FAILED", "3:0", "None", "n1", "100", "200", name)))
    assert await slurm.ended_jobs([5]) == {}


async def test_a_site_without_accounting() -> None:
    slurm, _ = scheduler(ended(1, "", "Slurm accounting storage is disabled\n"))
    assert await slurm.ended_jobs([5]) is None


@pytest.mark.parametrize(
    ("answer", "outcome", "job_id"),
    [
        (ended(0, "17\n"), SendOutcome.ACCEPTED, 17),
        (ended(0, "17;lab\n", "sbatch: warning: can't honor"), SendOutcome.ACCEPTED, 17),
        (ended(0, "", "sbatch: a word of the site's"), SendOutcome.UNKNOWN, None),
        (ended(0, "thank you"), SendOutcome.UNKNOWN, None),
        (ended(1, "17\n"), SendOutcome.UNKNOWN, None),
        (ended(None, "17\n"), SendOutcome.UNKNOWN, None),
        (
            ended(1, "", "sbatch: error: Batch job submission failed: Invalid qos specification"),
            SendOutcome.REJECTED,
            None,
        ),
        (missing, SendOutcome.DEFERRED, None),
        (short, SendOutcome.UNKNOWN, None),
    ],
)
async def test_submitting(answer: Answer, outcome: SendOutcome, job_id: int | None) -> None:
    slurm, _ = scheduler(answer)
    before = slurm.next_sequence()
    sent = await slurm.submit(SUBMISSION)
    assert (sent.outcome, sent.job_id) == (outcome, job_id)
    assert before < sent.sequence < slurm.next_sequence()
    assert bool(sent.message) == (outcome is not SendOutcome.ACCEPTED)


async def test_the_sequence_is_taken_after_sbatch_returned() -> None:
    taken: list[int] = []

    def answer(argv: tuple[str, ...]) -> Completed:
        taken.append(slurm.next_sequence())
        return ended(0, "17\n")(argv)

    slurm, _ = scheduler(answer)
    sent = await slurm.submit(SUBMISSION)
    assert sent.sequence > taken[0]


async def test_sbatch_is_told_the_name_and_the_singleton() -> None:
    slurm, runner = scheduler(ended(0, "17\n"))
    await slurm.submit(SUBMISSION)
    (asked,) = runner.asked
    assert asked[-3:] == (f"--job-name={PREFIX}a-0-1", "--dependency=singleton", "/job.sh")


async def test_nothing_is_sent_that_slurm_would_read_otherwise() -> None:
    slurm, runner = scheduler(ended(0, "17\n"))
    with pytest.raises(ValueError, match="choose another folder"):
        await slurm.submit(replace(SUBMISSION, folder="relative"))
    assert runner.asked == []


async def test_cancelling() -> None:
    slurm, runner = scheduler(ended())
    await slurm.cancel(PREFIX + "a-0-1", 17)
    assert runner.asked == [("scancel", f"--name={PREFIX}a-0-1", "17")]


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (ended(1, "", "scancel: error: Kill job error on job id 17: Invalid job id specified"), None),
        (ended(1, "", "scancel: error: Kill job error on job id 17: Job/step already completing or completed"), None),
        (
            ended(8, "", "slurm_load_jobs error: Unable to contact slurm controller (connect failure)"),
            "SlurmUnreachable",
        ),
        (ended(210, "", "scancel: error: Kill job error on job id 17: Access/permission denied"), "PermissionDenied"),
        (ended(None), "SlurmTimeout"),
        (missing, "SlurmMissing"),
    ],
)
async def test_cancels_that_fail(answer: Answer, reason: str | None) -> None:
    slurm, _ = scheduler(answer)
    if reason is None:
        await slurm.cancel(PREFIX + "a-0-1", 17)
        return
    with pytest.raises(UnreadableError) as raised:
        await slurm.cancel(PREFIX + "a-0-1", 17)
    assert raised.value.reason == reason


async def test_shortening() -> None:
    slurm, runner = scheduler(ended())
    await slurm.shorten(PREFIX + "a-0-1", 239)
    told = (f"JobName={PREFIX}a-0-1", f"UserID={os.getuid()}", "TimeLimit=239")
    assert runner.asked == [("scontrol", "update", *told)]


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (ended(1, "", "scontrol: error: No jobs with name 'af-k3x9q2-a-0-1'"), "SlurmFailed"),
        (ended(1, "", "Access/permission denied for job 17"), "PermissionDenied"),
        (ended(None), "SlurmTimeout"),
        (missing, "SlurmMissing"),
    ],
)
async def test_what_was_not_shortened_is_told(answer: Answer, reason: str) -> None:
    slurm, _ = scheduler(answer)
    with pytest.raises(UnreadableError) as raised:
        await slurm.shorten(PREFIX + "a-0-1", 239)
    assert raised.value.reason == reason


async def test_maintenance_is_read_from_all_reservations() -> None:
    slurm, runner = scheduler(ended(0, (RECORDED / "scontrol-reservations.txt").read_text()))
    assert len(await slurm.maintenances()) == 2
    assert runner.asked == [("scontrol", "--local", "--oneliner", "show", "reservation")]
    silent, _ = scheduler(ended(1, "", "slurm_load_reservations error: Unable to contact slurm controller"))
    with pytest.raises(UnreadableError) as raised:
        await silent.maintenances()
    assert raised.value.reason == "SlurmUnreachable"


async def test_what_this_host_lacks_is_a_silence_that_says_so() -> None:
    slurm, _ = scheduler(short)
    for asked in (slurm.list_jobs(), slurm.ended_jobs([5]), slurm.addresses(), slurm.cancel(PREFIX + "a-0-1", 5)):
        with pytest.raises(UnreadableError, match="Too many open files: is this host short of") as raised:
            await asked
        assert raised.value.reason == "SlurmNotStarted"
