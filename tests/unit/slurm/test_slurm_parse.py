import contextlib
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.core.jobs import Job, JobEnd, JobPhase, Maintenance
from controller.slurm import argv, parse
from controller.slurm.hostlist import first_host
from controller.slurm.states import leaving

RECORDED = Path(__file__).parent / "samples" / "22.05"
MARK = argv.make_mark("recorded")
PREFIX = "af-k3x9q2-"


def recorded(name: str) -> str:
    return (RECORDED / f"{name}.txt").read_bytes().decode()


def without_limits() -> str:
    """A listing that was recorded before time limits were asked for: they are empty."""
    return recorded("ours-squeue").replace(MARK + "\n", MARK + MARK + "\n")


HEADER = ("JOBID", "STATE", "EXEC_HOST", "START_TIME", "END_TIME", "NAME", "REASON", "TIME_LIMIT")


def printed(rows: Iterable[Iterable[str]], mark: str = MARK) -> str:
    """What squeue prints for a format that puts the mark behind every field."""
    return "".join("".join(field + mark for field in row) + "\n" for row in (HEADER, *rows))


def jobs_of(listing: str) -> tuple[Job, ...]:
    return tuple(job for _, job in parse.read_listing(listing, MARK, PREFIX, {}))


@pytest.fixture
def listed() -> dict[int, Job]:
    return {job.job_id: job for job in jobs_of(without_limits())}


def test_a_real_listing_gives_our_jobs_only(listed: dict[int, Job]) -> None:
    assert sorted(listed) == [1, 2, 3, 4, 5, 6, 7, 8, 11, 12, 13, 14, 15]
    assert {job.token for job in listed.values()} >= {"af-k3x9q2-run-0-1", "af-k3x9q2-ok-0-1"}


def test_a_running_job(listed: dict[int, Job]) -> None:
    assert listed[1] == Job(
        job_id=1, token="af-k3x9q2-run-0-1", phase=JobPhase.RUNNING, state="RUNNING", node="node1",
        started_at=1795422125.0, ends_at=1795425725.0,
    )  # fmt: skip


def test_a_pending_job_has_a_reason_but_neither_node_nor_times(listed: dict[int, Job]) -> None:
    assert listed[4] == Job(
        job_id=4,
        token="af-k3x9q2-run-0-1",
        phase=JobPhase.PENDING,
        state="PENDING",
        reason="Dependency",
        is_kept_back=True,
    )
    assert (listed[5].reason, listed[5].is_kept_back) == ("PartitionTimeLimit", False)
    assert "lower resources.time_limit" in listed[5].advice


def test_forecasts_of_a_requeued_job_are_not_times_of_a_run(listed: dict[int, Job]) -> None:
    assert (listed[11].phase, listed[11].node) == (JobPhase.PENDING, None)
    assert (listed[11].started_at, listed[11].ends_at) == (None, None)


def test_a_forecast_of_a_queued_job_is_kept_and_is_no_news() -> None:
    queued = ("7", "PENDING", "n/a", "1795422125", "1795425725", PREFIX + "a-0-1", "QOSMaxJobsPerUserLimit", "1:00:00")
    (job,) = jobs_of(printed([queued]))
    (later,) = jobs_of(printed([(*queued[:3], "1795429999", *queued[4:])]))
    assert (job.begins_at, later.begins_at, job.started_at, job.lacks_room) == (1795422125.0, 1795429999.0, None, True)
    assert job == later
    (running,) = jobs_of(
        printed([("7", "RUNNING", "n1", "1795422125", "1795425725", PREFIX + "a-0-1", "None", "5:00")])
    )
    assert (running.begins_at, running.lacks_room) == (None, False)


def test_a_real_listing_tells_what_awaits_a_maintenance_and_for_how_long_it_would_run() -> None:
    jobs = {job.token.split("-")[2]: job for job in jobs_of(recorded("maintenance-squeue"))}
    told = {name: (job.awaits_maintenance, job.time_limit) for name, job in jobs.items()}
    assert told == {
        "long": (True, 4 * 3600.0),
        "days": (True, 3 * 86_400.0 + 3600 + 180),
        "endless": (False, None),
        "short": (False, None),  # it runs, and its end is known
    }
    assert jobs["short"].ends_at == jobs["short"].started_at + 240.0  # type: ignore[operator]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("4:00", 240.0), ("1:00:00", 3600.0), ("3-01:03:00", 262_980.0), ("0:30", 30.0), ("UNLIMITED", None),
     ("NOT_SET", None), ("INVALID", None), ("", None)],
)  # fmt: skip
def test_time_limits(text: str, seconds: float | None) -> None:
    assert parse.read_limit(text) == seconds


def test_real_reservations_tell_which_are_for_maintenance() -> None:
    """Recorded with 22.05: one without that flag is left out, and the first to begin comes first."""
    assert parse.parse_maintenances(recorded("scontrol-reservations")) == (
        Maintenance(begins_at=1795958484.0, ends_at=1795962084.0),
        Maintenance(begins_at=1795965084.0, ends_at=1795979484.0),
    )


def test_what_is_no_maintenance_needs_no_times() -> None:
    assert parse.parse_maintenances("ReservationName=x StartTime=100 EndTime=Unknown Flags=SPEC_NODES") == ()


def test_no_reservations_are_said_to_be_none() -> None:
    assert parse.parse_maintenances("No reservations in the system\n") == ()


def test_what_comes_first_counts_and_not_what_a_comment_holds() -> None:
    line = recorded("scontrol-reservations").splitlines()[1]
    (found,) = parse.parse_maintenances(f"{line} Comment=moved, StartTime=1 Flags=")
    assert found.begins_at == 1795958484.0


@pytest.mark.parametrize("text", ["", "\n", "slurm_load_reservations error: no\n", "ReservationName=a Flags=MAINT\n"])
def test_another_text_is_no_list_of_reservations(text: str) -> None:
    with pytest.raises(parse.GarbledError):
        parse.parse_maintenances(text)


def test_two_jobs_of_one_token_both_show(listed: dict[int, Job]) -> None:
    assert {job.job_id for job in listed.values() if job.token == "af-k3x9q2-run-0-1"} == {1, 4}


def test_ended_jobs_keep_their_start_but_have_no_limit_to_come(listed: dict[int, Job]) -> None:
    assert (listed[6].phase, listed[6].end, listed[6].reason) == (JobPhase.ENDED, JobEnd.FAILED, "NonZeroExitCode")
    assert (listed[6].started_at, listed[6].ends_at) == (1795422125.0, None)
    assert (listed[14].started_at, listed[14].node) == (None, None)  # cancelled before it got a node


def test_suspended_and_completing(listed: dict[int, Job]) -> None:
    assert (listed[12].phase, listed[12].ends_at) == (JobPhase.SUSPENDED, 1795425725.0)
    assert (listed[15].phase, listed[15].node, listed[15].ends_at) == (JobPhase.COMPLETING, "node1", None)


def test_real_accounting() -> None:
    jobs = {job.job_id: job for job in parse.parse_accounting(recorded("ours-sacct"), MARK, PREFIX)}
    assert sorted(jobs) == [1, 2, 3, 4, 5, 6, 7, 8, 11, 12, 13, 14, 15]
    assert (jobs[6].exit_code, jobs[6].signal, jobs[6].phase) == (3, None, JobPhase.ENDED)
    assert (jobs[7].exit_code, jobs[7].signal) == (0, 11)
    assert (jobs[13].state, jobs[13].phase, jobs[13].started_at) == ("CANCELLED", JobPhase.ENDED, 1795422125.0)
    assert jobs[2].node == "node1"
    assert jobs[14].node is None
    assert jobs[11].phase is JobPhase.PENDING


def test_nodes_that_are_being_taken_out_of_service() -> None:
    """As sinfo of 22.05 printed it: a node once for each of its partitions, marks behind the state."""
    rows = (("NODELIST", "STATE"), ("node1", "draining"), ("node1", "draining"), ("node2", "fail"), ("node3", "mixed*"))
    text = "".join("".join(field + MARK for field in row) + "\n" for row in rows)
    assert parse.parse_leaving(text, MARK) == {"node1": "draining", "node2": "fail"}


@pytest.mark.parametrize(
    ("told", "state"),
    [("draining@", "draining"), ("drained*", "drained"), ("DOWN*", "down"), ("failing", "failing"), ("idle", ""),
     ("mixed$", ""), ("maint", ""), ("reserved", ""), ("", "")],
)  # fmt: skip
def test_what_state_a_node_leaves_in(told: str, state: str) -> None:
    assert leaving(told) == state


def test_real_addresses() -> None:
    assert parse.parse_addresses(recorded("ours-sinfo"), MARK) == {"node1": "127.0.0.1", "node2": "127.0.0.1"}


def test_a_record_that_was_there_before_gives_the_same_job() -> None:
    before = dict(parse.read_listing(without_limits(), MARK, PREFIX, {}))
    changed = without_limits().replace("SUSPENDED", "RUNNING")
    after = dict(parse.read_listing(changed, MARK, PREFIX, before))
    assert {job.job_id for record, job in after.items() if before.get(record) is not job} == {12}
    assert tuple(after.values()) == jobs_of(changed)


def test_a_coloured_listing_says_the_same() -> None:
    """An unknown state counts as running, and so would a coloured one."""
    listing = printed([("7", "PENDING", "n/a", "N/A", "N/A", PREFIX + "a-0-1", "Priority", "5:00")])
    words = listing.replace("PENDING", "\x1b[1;33mPENDING\x1b[0m").replace(f"7{MARK}", f"\x1b[36m7\x1b[m{MARK}")
    assert jobs_of(words) == jobs_of(f"\x1b[1m{listing}\x1b[0m") == jobs_of(listing)


def test_no_jobs_is_a_header_without_rows() -> None:
    assert jobs_of(printed([])) == ()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n",
        "slurm_load_jobs error: Unable to contact slurm controller\n",
        printed([("7", "RUNNING", "n1", "1", "2", PREFIX + "a-0-1", "None", "5:00")]).partition("\n")[2],
        f"1{MARK}RUNNING{MARK}node1{MARK}\n",
        "7|RUNNING|node1|1|2|af-k3x9q2-a-0-1|None|5:00\n",
    ],
)
def test_another_text_is_never_a_listing(text: str) -> None:
    with pytest.raises(parse.GarbledError):
        jobs_of(text)


def test_an_id_of_ours_that_is_no_number_is_garbled() -> None:
    with pytest.raises(parse.GarbledError, match="not a job id"):
        jobs_of(printed([("12_3", "RUNNING", "n1", "1", "2", PREFIX + "a", "None", "5:00")]))


@given(st.integers(min_value=1, max_value=len(without_limits().rstrip("\n")) - 1))
def test_a_listing_cut_short_is_never_read_as_a_shorter_one(length: int) -> None:
    """But at the end of a record, which the exit code has to tell."""
    cut = without_limits()[:length]
    whole = parse.records(without_limits(), MARK, 8)
    try:
        rows = parse.records(cut, MARK, 8)
    except parse.GarbledError:
        return
    assert cut.rstrip("\n").endswith(MARK)
    assert rows == whole[: len(rows)]


hostile = st.text(st.sampled_from("ab|\x1f\x1e\n\r\t\x00\"'%jé[]reco ") | st.characters(codec="utf-8"), max_size=20)
row = st.tuples(
    st.integers(1, 2**31).map(str),
    st.sampled_from(["RUNNING", "PENDING", "COMPLETED"]),
    st.sampled_from(["n/a", "node1"]),
    st.just("1795422125"),
    st.just("N/A"),
    st.tuples(st.sampled_from(["", PREFIX]), hostile).map("".join),
    hostile,
    hostile,
).filter(lambda fields: not any(MARK in field or parse.COLOUR.search(field) for field in fields))


@given(st.lists(row, max_size=8))
def test_names_and_reasons_may_hold_anything(rows: list[tuple[str, ...]]) -> None:
    jobs = jobs_of(printed(rows))
    assert [(str(job.job_id), job.token) for job in jobs] == [(r[0], r[5]) for r in rows if r[5].startswith(PREFIX)]


@given(st.text(max_size=200))
def test_no_text_makes_the_parsers_fail_otherwise(text: str) -> None:
    with contextlib.suppress(parse.GarbledError):
        jobs_of(text)
    with contextlib.suppress(parse.GarbledError):
        parse.parse_accounting(text, MARK, PREFIX)
    with contextlib.suppress(parse.GarbledError):
        parse.parse_maintenances(text)
    parse.parse_submission(text)
    parse.read_limit(text)
    parse.read_time(text)
    first_host(text)


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("node1", "node1"),
        ("node[1-3]", "node1"),
        ("node[001-016,20],login1", "node001"),
        ("rack[2-3]n[05,7]", "rack2n05"),
        ("gpu-a[7]", "gpu-a7"),
        ("a1,b[1-2]", "a1"),
        ("n/a", None),
        ("", None),
        ("None assigned", None),
        ("(null)", None),
    ],
)
def test_first_host(text: str, host: str | None) -> None:
    assert first_host(text) == host


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1795422125", 1795422125.0),
        ("2026-11-23T06:24:34", 1795415074.0),
        ("N/A", None),
        ("Unknown", None),
        ("None", None),
        ("", None),
        ("²", None),
    ],
)
def test_times(text: str, seconds: float | None) -> None:
    assert parse.read_time(text) == seconds


@pytest.mark.parametrize(
    ("text", "job_id"),
    [
        ("12\n", 12),
        ("12;lab\n", 12),
        ("a word of the site's plugin\n12\n", 12),
        ("Submitted batch job 12\n", 12),
        ("Your budget: 7 hours\nSubmitted batch job 12 on cluster lab\n", 12),
        ("", None),
        ("sbatch: 12", None),
        ("Submitted batch job\n", None),
        ("12 jobs", None),
    ],
)
def test_submission(text: str, job_id: int | None) -> None:
    assert parse.parse_submission(text) == job_id
