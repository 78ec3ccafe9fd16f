import pytest

from controller.core.jobs import Bar, JobPhase
from controller.slurm.reasons import advice, meaning


@pytest.mark.parametrize(
    ("phase", "reason", "words"),
    [
        (JobPhase.PENDING, "JobHeldUser", "`scontrol release` lets it go. If none of you held it, a submit filter"),
        (JobPhase.PENDING, "PartitionConfig", "lower its resources"),
        (JobPhase.PENDING, "None", ""),
        (JobPhase.PENDING, "", ""),
        (JobPhase.SUSPENDED, "", "scontrol show job 17"),
        (JobPhase.RUNNING, "JobHeldUser", ""),
    ],
)
def test_what_to_do_about_a_job_that_does_not_run(phase: JobPhase, reason: str, words: str) -> None:
    said = advice(phase, reason, "17")
    assert words in said
    assert bool(said) is bool(words)


NEVER = {
    "PartitionTimeLimit": Bar.OVER_LIMIT,
    "QOSMaxWallDurationPerJobLimit": Bar.OVER_LIMIT,
    "AssocMaxWallDurationPerJobLimit": Bar.OVER_LIMIT,
    "QOSMaxGRESPerJob": Bar.OVER_LIMIT,
    "QOSMaxCpuPerNode": Bar.OVER_LIMIT,
    "AssocMaxCPUMinutesPerJobLimit": Bar.OVER_LIMIT,
    "QOSMinGRES": Bar.OVER_LIMIT,
    "MaxMemPerLimit": Bar.OVER_LIMIT,
    "Job's account not permitted to use this partition (closed allows root not local)": Bar.NOT_PERMITTED,
    "Job's QOS not permitted to use this partition (closed allows high not normal)": Bar.NOT_PERMITTED,
    "PartitionNodeLimit": Bar.UNSATISFIABLE,
    "PartitionConfig": Bar.UNSATISFIABLE,
}
NO_ROOM = {"AssocGrpJobsLimit", "AssocMaxJobsLimit", "QOSMaxJobsPerUserLimit"}
SHARED = ["QOSMaxGRESPerUser", "QOSMaxCpuPerUserLimit", "AssocGrpCpuLimit", "AssocGrpGRES", "QOSGrpMemLimit"]
WAITS = [
    "AssocGrpCPUMinutesLimit", "AssocGrpCPURunMinutesLimit", "AssocGrpJobsLimit", "AssocMaxJobsLimit", "BeginTime",
    "JobHeldAdmin", "JobHeldUser", "NodeDown", "PartitionDown", "PartitionInactive", "Priority",
    "QOSMaxJobsPerUserLimit", "ReqNodeNotAvail", "ReqNodeNotAvail, Reserved for maintenance",
    "ReqNodeNotAvail, UnavailableNodes:node4", "Reservation", "Resources", "launch failed requeued held",
    "Nodes required for job are DOWN, DRAINED or reserved for jobs in higher priority partitions", "Licenses",
]  # fmt: skip


@pytest.mark.parametrize("reason", [*NEVER, *SHARED, *WAITS])
def test_each_reason_has_a_sentence_and_those_that_never_pass_are_known(reason: str) -> None:
    found = meaning(reason)
    assert found.advice.endswith(".")
    assert found.advice[0].isupper()
    assert (found.bar, found.is_shared) == (NEVER.get(reason), reason in SHARED)
    assert found.lacks_room == (reason in SHARED or reason in NO_ROOM)


def test_whose_limit_it_is() -> None:
    assert "partition" in meaning("MaxMemPerLimit").advice
    assert "QOS" in meaning("QOSMaxMemoryPerJob").advice


def test_what_waits_for_a_maintenance_is_told_from_what_other_reservations_hold() -> None:
    assert meaning("ReqNodeNotAvail, Reserved for maintenance").awaits_maintenance
    assert not meaning("Reservation").awaits_maintenance
    assert not meaning("ReqNodeNotAvail, May be reserved for other job").awaits_maintenance


def test_what_maintenance_holds_is_told_from_what_is_down() -> None:
    assert "reserved" in meaning("ReqNodeNotAvail, Reserved for maintenance").advice
    assert "down" in meaning("ReqNodeNotAvail, UnavailableNodes:node4").advice
