"""The cluster behind `ports.Scheduler`: command line, run, judge, parse. It retries nothing."""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import pwd
import secrets
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

from api.contract.launch import Submission
from controller.core.attempt import SendOutcome, Sent
from controller.core.jobs import Bar, Job, JobPhase, Maintenance
from controller.ports import Listing, UnreadableError
from controller.slurm import argv, ceilings, errors, parse
from controller.slurm.reasons import meaning
from controller.slurm.runner import Completed, NotStartedError, Runner

IDS_AT_ONCE = 500
"""Job ids in one sacct: a command line of some 5 kB."""

_Answer = TypeVar("_Answer")

log = logging.getLogger(__name__)


class SlurmScheduler:
    """Slurm through its commands, for the jobs of this user whose names begin with the installation's prefix."""

    def __init__(self, runner: Runner, prefix: str) -> None:
        if not prefix:
            msg = "the prefix of the installation's tokens must not be empty: it would match every job of the user"
            raise ValueError(msg)
        self._runner = runner
        self._prefix = prefix
        self._numbers = itertools.count(1)
        self._heard: dict[str, str] = {}
        self._listed: Mapping[parse.Record, Job] = {}
        self._excess: dict[tuple[int, str], str | None] = {}
        """By id and reason, what a job asks for above a limit, as it was found out."""

    async def list_jobs(self) -> Listing:
        """List our jobs, ended ones that squeue still holds too. Raises UnreadableError."""
        mark = self._mark()
        answer = await self._read(argv.list_command(mark))
        found = understood(answer, lambda: parse.read_listing(answer.stdout, mark, self._prefix, before=self._listed))
        self._listed = dict(found)
        return Listing(jobs=await self._judged([job for _, job in found]))

    async def _judged(self, jobs: Sequence[Job]) -> tuple[Job, ...]:
        """Tell which jobs ask for more than a limit on many will ever allow one.

        Slurm has one word for that and for waiting. One job is asked about a reading, and each once for its reason.
        """
        shared = [job for job in jobs if job.phase is JobPhase.PENDING and meaning(job.reason).is_shared]
        if not shared and not self._excess:
            return tuple(jobs)
        known = {
            job: self._excess[job.job_id, job.reason] for job in shared if (job.job_id, job.reason) in self._excess
        }
        asked = next((job for job in shared if job not in known), None)
        if asked is not None:
            known[asked] = await self._ask_excess(asked)
        self._excess = {(job.job_id, job.reason): excess for job, excess in known.items()}
        return tuple(_barred(job, known.get(job)) for job in jobs)

    async def _ask_excess(self, job: Job) -> str | None:
        """Ask what it asks for, and what it may have; `None` if that is less, or can't be known."""
        with contextlib.suppress(NotStartedError):
            asked = ceilings.read_asked((await self._runner.read(ceilings.job_command(job.job_id))).stdout)
            if asked is not None:
                told = await self._runner.read(ceilings.limits_command(_user(), asked.qos))
                return ceilings.excess(asked, told.stdout, job.reason)
        return None

    async def ended_jobs(self, job_ids: Collection[int]) -> Mapping[int, Job] | None:
        """Ask accounting about jobs that left the listing; unknown ids, and those of strangers, are absent.

        Ids are given out anew after a slurmctld lost its state: the caller compares the token. A job is not always
        ended: look at its phase. `None`: the site keeps no accounting. Raises UnreadableError.
        """
        found: dict[int, Job] = {}
        wanted = sorted(set(job_ids))
        for at in range(0, len(wanted), IDS_AT_ONCE):
            jobs = await self._account(wanted[at : at + IDS_AT_ONCE])
            if jobs is None:
                return None
            found.update((job.job_id, job) for job in jobs)
        return found

    async def _account(self, job_ids: Collection[int]) -> tuple[Job, ...] | None:
        mark = self._mark()
        answer = await self._run(argv.accounting_command(job_ids, os.getuid(), mark))
        if errors.is_without_accounting(answer):
            return None
        _check(answer)
        return understood(answer, lambda: parse.parse_accounting(answer.stdout, mark, self._prefix))

    async def addresses(self) -> Mapping[str, str]:
        """Return every node's address (NodeAddr). Raises UnreadableError."""
        mark = self._mark()
        answer = await self._read(argv.address_command(mark))
        return understood(answer, lambda: parse.parse_addresses(answer.stdout, mark))

    async def leaving(self, nodes: Collection[str]) -> Mapping[str, str]:
        """Return those of the nodes that are being taken out of service, with their states. Raises UnreadableError."""
        mark = self._mark()
        answer = await self._read(argv.node_command(nodes, mark))
        return understood(answer, lambda: parse.parse_leaving(answer.stdout, mark))

    async def maintenances(self) -> tuple[Maintenance, ...]:
        """Return the maintenance that goes on or is to come, as far as this user may see it. Raises UnreadableError."""
        answer = await self._read(argv.reservations_command())
        return understood(answer, lambda: parse.parse_maintenances(answer.stdout))

    async def submit(self, submission: Submission) -> Sent:
        """Have sbatch make one job. Raises ValueError for what can't be handed to sbatch; never for Slurm's no.

        Slurm refuses what leaves no node that would do: then one that is to be left out is better than none.
        """
        sent = await self._submit(submission)
        if submission.exclude and sent.outcome is SendOutcome.REJECTED:
            return await self._submit(replace(submission, exclude=()))
        return sent

    async def _submit(self, submission: Submission) -> Sent:
        command = argv.submit_command(submission)
        try:
            completed = await self._runner.change(command)
        except NotStartedError as error:
            outcome = SendOutcome.DEFERRED if error.is_certain else SendOutcome.UNKNOWN
            return Sent(outcome=outcome, sequence=self.next_sequence(), message=_not_started(error).message)
        if completed.exit_code == 0:
            self._hear(completed)
        return read_answer(completed, self.next_sequence())

    async def cancel(self, token: str, job_id: int) -> None:
        """Cancel the job of that name and id. One that is gone is fine. Raises UnreadableError for all else."""
        try:
            completed = await self._runner.change(argv.cancel_command(token, job_id))
        except NotStartedError as error:
            raise _not_started(error) from error
        if trouble := errors.cancel_trouble(completed):
            raise _unreadable(trouble)

    async def shorten(self, token: str, minutes: int) -> None:
        """Set the time limit of our jobs of that name that have not ended. Raises UnreadableError if that failed."""
        try:
            completed = await self._runner.change(argv.shorten_command(token, os.getuid(), minutes))
        except NotStartedError as error:
            raise _not_started(error) from error
        _check(completed)

    def next_sequence(self) -> int:
        """Take the next number of the counter that orders readings and returned submissions."""
        return next(self._numbers)

    def _mark(self) -> str:
        return argv.make_mark(secrets.token_hex(4))

    async def _read(self, command: tuple[str, ...]) -> Completed:
        completed = await self._run(command)
        _check(completed)
        return completed

    def _hear(self, completed: Completed) -> None:
        """Write down what a command said beside its answer, or instead of one, until it says something else."""
        said = completed.stderr.strip()
        if said and said != self._heard.get(completed.command):
            log.info(
                "a command says something beside its answer, or instead of one",
                extra={"command": completed.command, "said": said},
            )
        self._heard[completed.command] = said

    async def _run(self, command: tuple[str, ...]) -> Completed:
        try:
            completed = await self._runner.read(command)
        except NotStartedError as error:
            raise _not_started(error) from error
        self._hear(completed)
        return completed


def _barred(job: Job, excess: str | None) -> Job:
    if excess is None:
        return job
    advice = f"{excess}: lower its resources, or choose another account or QOS."
    return replace(job, bar=Bar.OVER_LIMIT, advice=advice)


def _user() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def read_answer(completed: Completed, sequence: int) -> Sent:
    """Read the answer of an sbatch that has returned. An id that can't be read leaves the outcome open."""
    if completed.exit_code == 0:
        job_id = parse.parse_submission(completed.stdout)
        if job_id is not None:
            return Sent(outcome=SendOutcome.ACCEPTED, sequence=sequence, job_id=job_id)
        message = f"sbatch printed no job id: {completed.stdout[:200]!r}"
        return Sent(outcome=SendOutcome.UNKNOWN, sequence=sequence, message=message)
    diagnosis = errors.diagnose(completed)
    return Sent(
        outcome=errors.send_outcome(diagnosis),
        sequence=sequence,
        message=diagnosis.message,
        is_refusal=diagnosis.trouble is errors.Trouble.REFUSED,
    )


def _check(completed: Completed) -> None:
    if trouble := errors.reading_trouble(completed, empty=False):
        raise _unreadable(trouble)


def understood(completed: Completed, parsed: Callable[[], _Answer]) -> _Answer:
    """Return an answer that proves to be one. What the command complained of says why one does not.

    Raises UnreadableError.
    """
    try:
        return parsed()
    except parse.GarbledError as error:
        if trouble := errors.reading_trouble(completed, empty=True):
            raise UnreadableError(trouble.reason, f"{trouble.message} (its answer can't be read: {error})") from error
        message = f"the answer of {completed.command} can't be read: {error}"
        raise UnreadableError("SlurmGarbled", message) from error


def _unreadable(diagnosis: errors.Diagnosis) -> UnreadableError:
    return UnreadableError(diagnosis.reason, diagnosis.message)


def _not_started(error: NotStartedError) -> UnreadableError:
    if not error.missing:
        return UnreadableError("SlurmNotStarted", f"{error}: is this host short of processes, memory or open files?")
    return UnreadableError("SlurmMissing", f"{error}: install Slurm's client commands here, or put them on PATH")
