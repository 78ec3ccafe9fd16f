from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.contract.launch import Resources, Submission
from controller.slurm import argv

TOKEN = "af-k3x9q2-web-0-1"


SUBMISSION = Submission(
    token=TOKEN, resources=Resources(), folder="/run/a", script="/x/job.sh", arguments=("/run/a", "$b c"),
    comment="web, replica 0", warning=120,
)  # fmt: skip


def options(resources: Resources | None = None, **changed: Any) -> tuple[str, ...]:
    command = argv.submit_command(replace(SUBMISSION, resources=resources or Resources(), **changed))
    assert command[0] == "sbatch"
    assert command[-3:] == ("/x/job.sh", "/run/a", "$b c")
    return command[1:-3]


def test_the_least_that_is_asked_for() -> None:
    assert options() == (
        "--nodes=1", "--propagate=NONE", "--cpus-per-task=1", "--time=60", "--mem=1024M",
        "--output=/run/a/stdout.log", "--error=/run/a/stderr.log", "--open-mode=append", "--chdir=/run/a",
        "--comment=web, replica 0", "--export=ALL", "--parsable",
        "--signal=B:USR1@120", "--no-requeue", f"--job-name={TOKEN}", "--dependency=singleton",
    )  # fmt: skip


def test_all_that_can_be_asked_for() -> None:
    resources = Resources(
        nodes=2, cpu=8, memory_mb=65536, gpu=4, gpu_type="a100", time_limit=1440, partition="gpu", account="proj",
        qos="high", constraint="nvlink&a100", reservation="week", gres="shard:2", extra_options=("--exclusive",),
    )  # fmt: skip
    assert options(resources)[:12] == (
        "--exclusive", "--nodes=2", "--propagate=NONE", "--cpus-per-task=8", "--time=1440", "--mem=65536M",
        "--gres=gpu:a100:4,shard:2",
        "--partition=gpu", "--account=proj", "--qos=high", "--constraint=nvlink&a100", "--reservation=week",
    )  # fmt: skip


def test_a_time_limit_that_may_be_lowered_is_not_for_slurm_to_lower() -> None:
    """With `--time-min` its job would begin at once with the least (22.05, measured)."""
    assert options(Resources(time_limit=1440, time_min=120)) == options(Resources(time_limit=1440))


def test_shortening_names_the_job_and_whose_it_is() -> None:
    """An id may be another job's by now, and without a user the jobs of all users are changed (scontrol(1))."""
    assert argv.shorten_command(TOKEN, 1000, 239) == (
        "scontrol", "update", f"JobName={TOKEN}", "UserID=1000", "TimeLimit=239",
    )  # fmt: skip


def test_nodes_to_keep_off_are_added_to_those_that_were_asked_to_be_left_out() -> None:
    assert "--exclude=n1,n2" in options(exclude=("n1", "n2"))
    found = options(Resources(extra_options=("--exclude=n[5-9]", "--contiguous")), exclude=("n1",))
    assert [option for option in found if option.startswith("--exclude")][-1] == "--exclude=n[5-9],n1"


def test_gpus_without_a_type() -> None:
    assert "--gres=gpu:2" in options(Resources(gpu=2))


@pytest.mark.parametrize("extra", ["--mem-per-cpu=2G", "--mem-per-gpu=40G"])
def test_memory_is_said_in_one_way_only(extra: str) -> None:
    assert not any(option.startswith("--mem=") for option in options(Resources(extra_options=(extra,))))


def test_what_is_left_to_slurm_is_not_said() -> None:
    found = options(Resources(cpu=None, memory_mb=None, time_limit=None))
    assert not any(option.startswith(("--cpus-per-task", "--mem", "--time")) for option in found)


def test_cpus_are_said_in_one_way_only() -> None:
    found = options(Resources(extra_options=("--gpus=2", "--cpus-per-gpu=8")))
    assert not any(option.startswith("--cpus-per-task") for option in found)


def test_limits_are_the_nodes_unless_somebody_says_which_are_handed_on() -> None:
    assert "--propagate=NONE" in options()
    found = options(Resources(extra_options=("--propagate=MEMLOCK",)))
    assert [option for option in found if option.startswith("--propagate")] == ["--propagate=MEMLOCK"]


def test_no_warning() -> None:
    assert not any("signal" in option for option in options(warning=0))


def test_another_job_can_be_waited_for_beside_the_singleton() -> None:
    assert options(after=17)[-1] == "--dependency=afterany:17,singleton"


def test_slurm_takes_no_longer_warning_than_a_16_bit_number() -> None:
    assert "--signal=B:USR1@65535" in options(warning=100_000)


def test_paths_are_literal() -> None:
    found = options(folder="/run/%j 100%")
    assert "--output=/run/%%j 100%%/stdout.log" in found
    assert "--error=/run/%%j 100%%/stderr.log" in found
    assert "--chdir=/run/%j 100%" in found


@pytest.mark.parametrize("path", ["relative", "/a\nb", "/a\x00b", ""])
def test_paths_that_slurm_would_read_otherwise_are_refused(path: str) -> None:
    with pytest.raises(ValueError, match="choose another folder"):
        options(folder=path)


def test_a_backslash_would_vanish() -> None:
    with pytest.raises(ValueError, match="backslash"):
        options(folder="/run/a\\b")


@given(st.lists(st.text(max_size=20).map("--dependency=".__add__), max_size=3), st.text(max_size=300))
def test_nothing_stands_behind_what_the_protocol_rests_on(extra: list[str], comment: str) -> None:
    result = options(Resources(extra_options=tuple(extra)), comment=comment)
    assert result[-3:] == ("--no-requeue", f"--job-name={TOKEN}", "--dependency=singleton")
    sent = next(option for option in result if option.startswith("--comment="))
    assert sent.isprintable()
    assert len(sent) <= len("--comment=") + argv.COMMENT_LENGTH


def test_every_option_of_ours_is_one_element() -> None:
    assert all(option.startswith("--") for option in options())


def test_a_cancellation_names_the_job_twice() -> None:
    assert argv.cancel_command(TOKEN, 17) == ("scancel", f"--name={TOKEN}", "17")


def test_reading_commands() -> None:
    mark = argv.make_mark("abc")
    listing = argv.list_command(mark)
    assert listing[:-1] == ("squeue", "--me", "--all", "--local", "--states=all")
    assert listing[-1].count(mark) == len(argv.LIST_FIELDS)
    assert "--jobs=3,20" in argv.accounting_command({20, 3}, 1000, mark)
    assert "--user=1000" in argv.accounting_command({20, 3}, 1000, mark)
    assert argv.address_command(mark)[0] == "sinfo"
    assert argv.node_command({"b", "a"}, mark)[:5] == ("sinfo", "--all", "--local", "--Node", "--nodes=a,b")
    many = [f"n{number}" for number in range(argv.MOST_NAMED + 1)]
    assert len(argv.node_command(many, mark)) == 5


@pytest.mark.parametrize("word", ["", "a%b", "a b", "é"])
def test_a_mark_is_no_format(word: str) -> None:
    with pytest.raises(ValueError, match="mark"):
        argv.make_mark(word)
