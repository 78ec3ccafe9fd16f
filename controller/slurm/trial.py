"""A submission tried without being made: `sbatch --test-only`.

It tells what no job of this kind may ask for, and what a submit filter of the site refuses. Of a partition's time
limit, of who may use it, and of the limits of QOS and account it says nothing (22.05, measured): the reason for which
a real job waits tells that within seconds (`reasons.meaning`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from api.contract.launch import Submission
from controller.slurm import errors
from controller.slurm.argv import submit_command, submit_options
from controller.slurm.runner import Completed


@dataclass(frozen=True, slots=True)
class Trial:
    """What came of it."""

    is_accepted: bool
    words: str
    """What sbatch said, on one line."""
    remedy: str = ""
    """What to do about a refusal, where that is known."""


def trial_command(job: Submission) -> tuple[str, ...]:
    """Return the trial of a job; one without a script is tried with an empty one. Raises ValueError as a submission."""
    if not job.script:
        return ("sbatch", "--test-only", *submit_options(job), "--wrap=true")
    command, *rest = submit_command(job)
    return (command, "--test-only", *rest)


def read_trial(completed: Completed) -> Trial:
    """Read what sbatch answered."""
    if completed.exit_code == 0:
        lines = [line.strip() for line in (completed.stderr or completed.stdout).splitlines() if line.strip()]
        return Trial(is_accepted=True, words=lines[-1].removeprefix("sbatch: ") if lines else "sbatch says yes")
    diagnosis = errors.diagnose(completed)
    if diagnosis.reason == "NotAvailableNow":  # a trial waits for nothing
        diagnosis = replace(diagnosis, remedy="choose another `partition` (sinfo lists them), or ask the site")
    return Trial(is_accepted=False, words=diagnosis.said, remedy=diagnosis.remedy)
