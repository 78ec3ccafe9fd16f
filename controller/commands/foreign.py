"""Jobs of this user that carry the tokens of another installation. They are shown, and ended only where people say so.

Perhaps that installation's database is lost; perhaps it is well, with folders and programs of its own.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby
from typing import Any

from api.contract.exits import ExitError
from api.contract.job.token import ANY_PREFIX, parse_token
from controller.core.jobs import Job, JobPhase
from controller.installation import Installation
from controller.slurm.scheduler import SlurmScheduler


class ForeignError(ExitError):
    """An installation's jobs are not to be ended here; the message says why."""


async def find_foreign(installation: Installation) -> tuple[Job, ...]:
    """Ask the cluster for such jobs, sorted by installation and id. Raises `UnreadableError`."""
    listing = await SlurmScheduler(installation.runner, ANY_PREFIX).list_jobs()
    alive = [job for job in listing.jobs if job.phase not in (JobPhase.COMPLETING, JobPhase.ENDED)]
    named = [job for job in alive if parse_token(job.token) is not None and installation_of(job) != installation.id]
    return tuple(sorted(named, key=lambda job: (installation_of(job), job.job_id)))


async def cancel_foreign(installation: Installation, other: str) -> tuple[Job, ...]:
    """Cancel those of another installation, by name and id together; return them.

    Raises `ForeignError`, `UnreadableError`.
    """
    if other == installation.id:
        raise ForeignError(f"{other} is this installation: its jobs end with its services (ai-factory services stop).")
    chosen = tuple(job for job in await find_foreign(installation) if installation_of(job) == other)
    if not chosen:
        raise ForeignError(f"Installation {other} has no jobs of this user on the cluster.")
    scheduler = SlurmScheduler(installation.runner, ANY_PREFIX)
    for job in chosen:
        await scheduler.cancel(job.token, job.job_id)
    return chosen


def installation_of(job: Job) -> str:
    """Return whose token a job carries."""
    token = parse_token(job.token)
    assert token is not None
    return token.installation


def listed_foreign(job: Job) -> dict[str, Any]:
    """Return it for scripts."""
    return {
        "token": job.token,
        "job_id": job.job_id,
        "state": job.state,
        "node": job.node,
        "installation": installation_of(job),
    }


def told_foreign(jobs: Iterable[Job]) -> list[str]:
    """Return them as lines for people, and what to do."""
    lines = []
    for installation, group in groupby(jobs, installation_of):
        lines += [_named(job) for job in group]
        lines.append(
            f"Installation {installation} is another one. If its database is lost, see docs/operation.md, "
            f"A lost database; to end its jobs: ai-factory adopt --cancel {installation}"
        )
    return lines


def told_cancelled(jobs: Iterable[Job]) -> list[str]:
    """Return those that were cancelled as lines for people."""
    return [f"{_named(job)}: cancelled" for job in jobs]


def _named(job: Job) -> str:
    return f"job {job.job_id}, {job.state}{f' on {job.node}' if job.node else ''}, {job.token}"
