import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.contract.sbatch_options import FIELDS, MAX_LENGTH, check_extra_options, check_option, check_value


@pytest.mark.parametrize(
    "option",
    [
        "--exclude=node[1-3,7]", "--nodelist=gpu-a01,gpu-a02", "--exclusive", "--exclusive=user", "--mem-per-cpu=4G",
        "--mem-per-gpu=40000M", "--cpus-per-gpu=8", "--gpus=a100:2", "--gpus-per-node=4", "--gpu-bind=map_gpu:0,1",
        "--tmp=100G", "--licenses=matlab@server:2,comsol:1", "--nice", "--nice=100", "--nice=-5", "--switches=1@60",
        "--hint=nomultithread", "--threads-per-core=1", "--ntasks-per-node=1", "--prefer=nvlink&a100",
        "--mail-type=END,FAIL,TIME_LIMIT_80", "--mail-user=a.b+c@example.org", "--wckey=team", "--delay-boot=60",
        "--oversubscribe", "--contiguous", "--distribution=block:cyclic", "--propagate=NONE", "--propagate",
        "--gres-flags=enforce-binding",
    ],
)  # fmt: skip
def test_what_sites_need_is_allowed(option: str) -> None:
    assert check_option(option) == option


@pytest.mark.parametrize(
    "name",
    [
        "array", "hetjob", "dependency", "job-name", "requeue", "no-requeue", "export", "export-file", "get-user-env",
        "output", "error", "input", "open-mode", "wrap", "chdir", "signal", "uid", "gid", "test-only", "wait",
        "clusters", "parsable", "comment", "hold", "begin", "deadline", "container", "cluster-constraint", "immediate",
    ],
)  # fmt: skip
def test_what_would_break_the_protocol_is_refused_with_a_reason(name: str) -> None:
    for option in (f"--{name}", f"--{name}=x"):
        with pytest.raises(ValueError, match=f"--{name} is not allowed: .+") as raised:
            check_option(option)
        assert "not on the list" not in str(raised.value)


@pytest.mark.parametrize(
    ("name", "field"),
    [
        ("partition", "partition"),
        ("time", "time_limit"),
        ("time-min", "time_min"),
        ("mem", "memory"),
        ("cpus-per-task", "cpu"),
    ],
)
def test_what_has_a_field_of_its_own_points_to_it(name: str, field: str) -> None:
    with pytest.raises(ValueError, match=f"--{name} .*resources.{field}"):
        check_option(f"--{name}=1")


@pytest.mark.parametrize("option", ["--arr=1-3", "--exclusiv", "--new-in-2030=1", "--bb=x", "--nodefile=/etc/passwd"])
def test_what_is_not_on_the_list_is_refused(option: str) -> None:
    with pytest.raises(ValueError, match=r"not on the list.*exclusive"):
        check_option(option)


@pytest.mark.parametrize(
    "option", ["", "-a", "-a1-3", "array=1", "--", "--=x", "--Exclusive", "--exclude node1", "\n--nice"]
)
def test_other_forms_are_refused(option: str) -> None:
    with pytest.raises(ValueError, match="--name=value"):
        check_option(option)


@pytest.mark.parametrize(
    "option",
    [
        "--exclude=", "--exclude=node1 node2", "--exclude=-node1", "--exclude=node1\n", "--exclude=a\x00b",
        "--mem-per-cpu=lots", "--gpus=-1", "--mail-user=a b", "--prefer=$(id)", "--wckey=é", "--nice=abc",
        "--exclusive=all", "--exclude=" + "n" * (MAX_LENGTH + 1),
    ],
)  # fmt: skip
def test_bad_values_are_refused(option: str) -> None:
    with pytest.raises(ValueError, match="value"):
        check_option(option)


def test_with_and_without_a_value() -> None:
    with pytest.raises(ValueError, match="takes no value"):
        check_option("--contiguous=yes")
    with pytest.raises(ValueError, match="needs a value"):
        check_option("--exclude")


@given(st.text(), st.sampled_from(["exclude", "nice", "prefer", "mail-user", "licenses", "hint", "distribution"]))
def test_an_accepted_value_is_short_plain_ascii(value: str, name: str) -> None:
    try:
        check_option(f"--{name}={value}")
    except ValueError:
        return
    assert value.isascii()
    assert value.isprintable()
    assert " " not in value
    assert len(value) <= MAX_LENGTH


def test_all_or_none() -> None:
    assert check_extra_options(["--exclusive", "--nice=1"]) == ("--exclusive", "--nice=1")
    assert check_extra_options([]) == ()
    with pytest.raises(ValueError, match="--array"):
        check_extra_options(["--exclusive", "--array=1-3"])


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("partition", "gpu"), ("partition", "gpu,gpu-long"), ("account", "p200981"), ("account", "team@site"),
        ("qos", "default"), ("constraint", "a100&nvlink"), ("constraint", "[rack1*2|rack2*4]"),
        ("reservation", "week_12"), ("gres", "gpu:a100:2"), ("gres", "shard:4,tmp:100G"), ("gpu_type", "a100_80gb.1"),
    ],
)  # fmt: skip
def test_values_of_fields(field: str, value: str) -> None:
    assert check_value(field, value) == value


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("value", ["", "a b", "a\nb", "a\x00", "a;b'", "$(id)", "é", "a" * 257])
def test_values_that_no_field_takes(field: str, value: str) -> None:
    with pytest.raises(ValueError, match=f"`{field}`"):
        check_value(field, value)
