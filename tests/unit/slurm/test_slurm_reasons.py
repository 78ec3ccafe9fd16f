import pytest

from controller.core.jobs import JobPhase
from controller.slurm.reasons import advice


@pytest.mark.parametrize(
    ("phase", "reason", "words"),
    [
        (JobPhase.PENDING, "JobHeldUser", "scontrol release"),
        (JobPhase.PENDING, "PartitionConfig", "lower its resources"),
        (JobPhase.PENDING, "Resources", ""),
        (JobPhase.SUSPENDED, "", "scontrol show job 17"),
        (JobPhase.RUNNING, "JobHeldUser", ""),
    ],
)
def test_what_to_do_about_a_job_that_does_not_run(phase: JobPhase, reason: str, words: str) -> None:
    said = advice(phase, reason, "17")
    assert words in said
    assert bool(said) is bool(words)
