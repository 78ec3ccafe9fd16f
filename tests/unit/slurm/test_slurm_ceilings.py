from pathlib import Path

import pytest

from controller.slurm import ceilings

RECORDED = Path(__file__).parent / "samples" / "22.05"


def recorded(name: str) -> str:
    return (RECORDED / f"scontrol-{name}.txt").read_text()


@pytest.mark.parametrize(
    ("job", "limits", "told"),
    [
        ("AssocGrpCpuLimit", "normal", "It asks for cpu=3, and the account poor may have cpu=2 in all"),
        ("QOSMaxGRESPerUser", "gpu1", "It asks for gres/gpu=2, and the QOS gpu1 may have gres/gpu=1 in all"),
    ],
)
def test_what_is_asked_for_above_a_limit(job: str, limits: str, told: str) -> None:
    asked = ceilings.read_asked(recorded(f"job-{job}"))
    assert asked is not None
    assert ceilings.excess(asked, recorded(f"limits-{limits}"), job) == told


def test_what_is_below_a_limit_waits_for_others() -> None:
    text = recorded("job-AssocGrpCpuLimit").replace("TRES=cpu=3", "TRES=cpu=2")
    asked = ceilings.read_asked(text)
    assert asked is not None
    assert asked.resources["cpu"] == 2
    assert ceilings.excess(asked, recorded("limits-normal"), "AssocGrpCpuLimit") is None


def test_limits_of_another_account_or_qos_are_no_limits() -> None:
    text = recorded("job-AssocGrpCpuLimit").replace("Account=poor", "Account=local")
    asked = ceilings.read_asked(text)
    assert asked is not None
    assert ceilings.excess(asked, recorded("limits-normal"), "AssocGrpCpuLimit") is None
    assert ceilings.excess(asked, recorded("limits-gpu1"), "QOSMaxGRESPerUser") is None


def test_a_limit_of_what_is_above_the_account_counts() -> None:
    limits = (
        recorded("limits-normal").replace("cpu=2(0)", "cpu=N(0)").replace("GrpTRES=cpu=N(0)", "GrpTRES=cpu=1(0)", 1)
    )
    asked = ceilings.read_asked(recorded("job-AssocGrpCpuLimit"))
    assert asked is not None
    assert ceilings.excess(asked, limits, "AssocGrpCpuLimit") is not None


def test_memory_is_counted_in_megabytes() -> None:
    asked = ceilings.read_asked("Account=a QOS=q TRES=cpu=1,mem=2G,node=1")
    assert asked is not None
    assert asked.resources == {"cpu": 1, "mem": 2048, "node": 1}


@pytest.mark.parametrize("text", ["", "slurm_load_jobs error: Invalid job id specified", "JobId=1 Account=a QOS=q"])
def test_what_is_not_told_is_not_known(text: str) -> None:
    assert ceilings.read_asked(text) is None
