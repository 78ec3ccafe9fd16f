import pytest

from api.contract.launch import Resources, Submission
from controller.slurm.runner import Completed
from controller.slurm.trial import Trial, read_trial, trial_command

JOB = Submission(
    token="af-k3x9q2-a-0-1", resources=Resources(gpu=2), folder="/run", script="/job.sh", comment="", warning=0
)


def answered(exit_code: int, stderr: str) -> Trial:
    return read_trial(Completed(argv=("sbatch", "--test-only"), exit_code=exit_code, stdout="", stderr=stderr))


def test_it_asks_for_the_very_same() -> None:
    command = trial_command(JOB)
    assert command[:2] == ("sbatch", "--test-only")
    assert "--gres=gpu:2" in command
    assert command[-1] == "/job.sh"


@pytest.mark.parametrize(
    ("exit_code", "stderr", "accepted", "words", "remedy"),
    [
        (0, "sbatch: Job 2 to start at 2026-11-28T16:53:27 using 1 processors on nodes node1\n", True,
         "Job 2 to start at", ""),
        (1, "sbatch: error: GPU jobs must go to partition boost\nallocation failure: Unspecified error\n", False,
         "GPU jobs must go to partition boost", "submit filter"),
        (1, "allocation failure: Requested node configuration is not available\n", False,
         "node configuration is not available", "ask for fewer"),
        (1, "allocation failure: Required partition not available (inactive or drain)\n", False, "not available",
         "choose another `partition`"),
    ],
)  # fmt: skip
def test_what_it_says(exit_code: int, stderr: str, accepted: bool, words: str, remedy: str) -> None:
    found = answered(exit_code, stderr)
    assert (found.is_accepted, words in found.words, remedy in found.remedy) == (accepted, True, True)
    assert bool(found.remedy) is not accepted
