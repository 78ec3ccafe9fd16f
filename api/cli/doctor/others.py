"""Jobs of this user that carry the tokens of another installation: perhaps their database is lost."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from api.cli.doctor.check import Check, CheckFailedError, SkippedError
from api.cli.doctor.slurm import Slurm, new_mark
from api.contract.database import Database, SchemaError
from api.contract.job.token import parse_token
from api.contract.settings import Settings
from api.contract.traces import find_traces
from controller.slurm.parse import records

_FIELDS = ("%A", "%T", "%j", "%k")
"""Id, state, name and comment (squeue(1))."""
NAMED = 10
"""Jobs of an installation that are named; more are only counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _ListedJob:
    job_id: str
    service: str
    """The name of its service, from the job's comment."""


class OtherInstallations:
    """The check, over one set of settings."""

    def __init__(self, slurm: Slurm, settings: Settings) -> None:
        self._slurm = slurm
        self._settings = settings

    def checks(self) -> list[Check]:
        """Return the check."""
        return [Check("other installations", self._others, needs=("Slurm answers",))]

    def _others(self) -> str:
        own = asyncio.run(_own_installation(self._settings.database_url))
        others = {one: jobs for one, jobs in self._jobs().items() if one != own}
        if not others:
            return "none has jobs here"
        told = "; ".join(_told(one, jobs) for one, jobs in sorted(others.items()))
        left_here = sorted(find_traces(self._settings).installations & others.keys())
        if not left_here:
            return f"{told}; neither state_dir nor run_dir has anything of it"
        ending = "; ".join(f"ai-factory adopt --cancel {one}" for one in left_here)
        raise CheckFailedError(
            told, f"If its database is lost, see docs/operation.md, A lost database; to end its jobs: {ending}"
        )

    def _jobs(self) -> Mapping[str, Sequence[_ListedJob]]:
        """Return this user's jobs that have a token and are not over, by installation."""
        mark = new_mark()
        fields = "".join(field + mark for field in _FIELDS)
        answer = self._slurm.ask("squeue", "--me", "--all", "--local", f"--format={fields}")
        found: dict[str, list[_ListedJob]] = {}
        for job_id, state, name, comment in records(answer, mark, len(_FIELDS)):
            token = parse_token(name)
            if token is not None and state != "COMPLETING":
                found.setdefault(token.installation, []).append(_ListedJob(job_id=job_id, service=comment))
        return found


def _told(installation: str, jobs: Sequence[_ListedJob]) -> str:
    names = ", ".join(f"{job.job_id} {job.service}".rstrip() for job in jobs[:NAMED])
    more = f" and {len(jobs) - NAMED} more" if len(jobs) > NAMED else ""
    return f"{len(jobs)} {'job' if len(jobs) == 1 else 'jobs'} of installation {installation} ({names}{more})"


async def _own_installation(url: str) -> str | None:
    """Return the id of these settings' installation; `None`: its database is empty."""
    try:
        database = Database(url)
        try:
            return await database.installation()
        finally:
            await database.close()
    except SchemaError as error:
        raise SkippedError("needs: database") from error
