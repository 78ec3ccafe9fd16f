"""Why a job waits, in Slurm's words, and what its owner may do about it ("JOB REASON CODES" of squeue(1))."""

from __future__ import annotations

from controller.core.jobs import JobPhase

KEPT_BACK = "Dependency"
"""It waits for other jobs to end."""

_ADVICE = {
    "PartitionTimeLimit": "It asks for more time than its partition allows: lower resources.time_limit.",
    "PartitionConfig": "It asks for more than its partition has: lower its resources, or choose another partition.",
    "PartitionDown": "Its partition is down: choose another one, or ask the site.",
    "PartitionInactive": "Its partition is inactive: choose another one, or ask the site.",
    "JobHeldUser": "It is held: `scontrol release` lets it go.",
    "JobHeldAdmin": "An administrator holds it.",
    "QOSMaxJobsPerUserLimit": "The QOS allows no more jobs of this user at a time.",
    "AssocGrpCpuLimit": "The account's CPUs are used up.",
}


def advice(phase: JobPhase, reason: str, job_id: str) -> str:
    """Return what to do about a job that does not run, or nothing."""
    if phase is JobPhase.SUSPENDED:
        return f"`scontrol show job {job_id}` may say why."
    return _ADVICE.get(reason, "") if phase is JobPhase.PENDING else ""
