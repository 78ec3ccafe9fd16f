"""Slurm, asked as the controller asks it: with its runner, its environment, its options and its table of errors."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import secrets
import shlex
import shutil
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

from api.cli.doctor.check import CheckFailedError, SkippedError, WarnedError
from api.contract.configuration import process_environment
from api.contract.launch import Resources, Submission
from api.contract.recipes.resources import leave_out
from api.contract.sbatch_options import check_extra_options
from api.contract.settings import SlurmSettings
from controller.slurm.argv import accounting_command, address_command, list_command, make_mark
from controller.slurm.environment import reading_environment
from controller.slurm.errors import Diagnosis, is_without_accounting, reading_trouble
from controller.slurm.parse import GarbledError, parse_accounting, parse_addresses, read_listing
from controller.slurm.runner import Completed, NotStartedError, ProcessRunner
from controller.slurm.trial import read_trial, trial_command

_Answer = TypeVar("_Answer")

COMMANDS = ("sbatch", "squeue", "sacct", "scancel", "sinfo")

HIDDEN = (
    "the site hides the addresses of its nodes (PrivateData), so they are called by their names",
    "See that this host can resolve the nodes' names (getent hosts NODE), or ask the site to show its nodes and "
    "partitions to you.",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedJob:
    """One job, as Slurm lists it."""

    job_id: int
    token: str
    """Its name."""
    state: str
    is_pending: bool
    is_over: bool
    is_completed: bool
    """Whether it ended well."""
    node: str
    """Where its script runs; "": nowhere yet."""
    reason: str
    advice: str


class Slurm:
    """Slurm's commands, run one at a time as the controller runs them."""

    def __init__(self, settings: SlurmSettings) -> None:
        self._settings = settings
        self._runner = ProcessRunner.of(settings)
        self._environment = reading_environment(process_environment(), settings.conf, settings.bin_dir)

    @property
    def conf(self) -> str | None:
        """The path of slurm.conf, where one is set."""
        return self._environment.get("SLURM_CONF")

    def missing(self) -> list[str]:
        """Return the commands that are not to be found."""
        return [name for name in COMMANDS if self.where(name) is None]

    def where(self, name: str) -> str | None:
        """Return the path of a command."""
        return shutil.which(name, path=self._environment["PATH"])

    def listed(self, name: str) -> list[ListedJob]:
        """Return the jobs whose name begins so, as the controller reads them. Raises `CheckFailedError`."""
        mark = new_mark()
        rows = self._proved(list_command(mark), lambda text: read_listing(text, mark, name, before={}))
        return [
            ListedJob(
                job_id=job.job_id,
                token=job.token,
                state=job.state,
                is_pending=job.phase == "pending",
                is_over=job.phase == "ended",
                is_completed=job.end == "completed",
                node=job.node or "",
                reason=job.reason,
                advice=job.advice,
            )
            for _, job in rows
        ]

    def addresses(self) -> Mapping[str, str]:
        """Return every node's address, as the controller reads them. Raises `CheckFailedError`."""
        mark = new_mark()
        return self._proved(address_command(mark), lambda text: parse_addresses(text, mark))

    def exit_code(self, job: ListedJob) -> int | None:
        """Return how a job ended, of slurmctld, which knows it at once, or of accounting; `None` if neither says."""
        if self.where("scontrol") is not None:
            shown = self.read("scontrol", "--oneliner", "show", "job", str(job.job_id)).stdout
            if match := re.search(r"\bExitCode=(\d+):", shown):
                return int(match[1])
        with contextlib.suppress(CheckFailedError, SkippedError):
            return next(iter(self.accounted(job.token, job.job_id)), None)
        return None

    def out_of_service(self, node: str) -> str:
        """Return why a node gets no jobs, in Slurm's or the site's words (sinfo(1), `%E`); "": nothing is said."""
        with contextlib.suppress(CheckFailedError):
            said = self.read("sinfo", "--noheader", "--local", f"--nodes={node}", "--format=%E").stdout
            return next((line.strip() for line in said.splitlines() if line.strip() not in ("", "none")), "")
        return ""

    def is_silent(self, node: str) -> bool:
        """Whether slurmctld has no answer of a node (sinfo(1), NODE STATE CODES: `*`)."""
        with contextlib.suppress(CheckFailedError):
            said = self.read("sinfo", "--noheader", "--local", f"--nodes={node}", "--format=%T").stdout
            return any(state.endswith("*") for state in said.split())
        return False

    def accounted(self, name: str, job_id: int) -> list[int | None]:
        """Return the exit code of a job, if accounting knows it, as the controller asks about ended jobs.

        Raises `CheckFailedError`, and `SkippedError` without accounting.
        """
        mark = new_mark()
        command = accounting_command([job_id], os.getuid(), mark)
        if is_without_accounting(self.read(*command)):
            raise SkippedError("this cluster keeps none; how a job ended is then read from its own files")
        return [job.exit_code for job in self._proved(command, lambda text: parse_accounting(text, mark, name))]

    @cached_property
    def config(self) -> Mapping[str, str]:
        """What `scontrol show config` prints. Raises `CheckFailedError`, and `SkippedError` without scontrol."""
        self.require("scontrol")
        lines = (line.partition("=") for line in self.ask("scontrol", "show", "config").splitlines())
        return {key.strip(): value.strip() for key, equals, value in lines if equals}

    def require(self, name: str) -> None:
        """Raise `SkippedError` where a command that only informs is not on this host."""
        if self.where(name) is None:
            raise SkippedError(f"{name} is not on this host; see: may submit")

    def read(self, *argv: str) -> Completed:
        """Run a command that changes nothing; raises `CheckFailedError` where it can't be run at all."""
        return _completed(self._runner.read(argv))

    def change(self, *argv: str) -> Completed:
        """Run sbatch or scancel; raises `CheckFailedError` where it can't be run at all."""
        return _completed(self._runner.change(argv))

    def ask(self, *argv: str) -> str:
        """Run a command that changes nothing; return its output.

        Raises `CheckFailedError`, with a remedy, and `SkippedError` where the site hides it (PrivateData).
        """
        completed = self.read(*argv)
        if trouble := reading_trouble(completed, empty=not completed.stdout.strip()):
            if trouble.reason == "PermissionDenied":
                raise SkippedError(f"the site hides it from this user: {trouble.said}; see: may submit")
            raise self.failure(trouble)
        return completed.stdout

    def try_out(self, resources: Resources) -> str:
        """Have sbatch say whether it would take a job (`--test-only`). Raises `CheckFailedError` where it would not."""
        command = trial_command(job("af-doctor", resources))
        trial = read_trial(self.change(*command))
        if not trial.is_accepted:
            conf = f"SLURM_CONF={shlex.quote(self._settings.conf)} " if self._settings.conf else ""
            by_hand = f"try it by hand: {conf}{shlex.join(command)}"
            raise self._refusal(trial.words, trial.remedy or by_hand)
        return trial.words

    def failure(self, trouble: Diagnosis) -> CheckFailedError:
        """Turn a diagnosis into a failed check."""
        return self._refusal(trouble.said, trouble.remedy)

    def _refusal(self, said: str, remedy: str) -> CheckFailedError:
        """Turn Slurm's words into a failed check. Remedies name keys of a recipe: here they are the settings'."""
        remedy = re.sub("`([a-z_]+)`", self._setting, remedy or f"try it by hand: {said.partition(':')[0]}")
        return CheckFailedError(said, remedy[0].upper() + remedy[1:])

    def _proved(self, argv: tuple[str, ...], parsed: Callable[[str], _Answer]) -> _Answer:
        answer = self.read(*argv)
        if trouble := reading_trouble(answer, empty=False):
            is_hidden = argv[0] == "sinfo" and trouble.reason == "PermissionDenied"
            raise WarnedError(*HIDDEN) if is_hidden else self.failure(trouble)
        try:
            return parsed(answer.stdout)
        except GarbledError as error:
            if trouble := reading_trouble(answer, empty=True):
                raise self.failure(trouble) from error
            raise CheckFailedError(
                f"the answer of {argv[0]} can't be read: {error}", f"Is {self.where(argv[0])} Slurm's own program?"
            ) from error

    def _setting(self, key: re.Match[str]) -> str:
        return f"slurm.{key[1]}" if hasattr(self._settings, key[1]) else key[0]


def _completed(running: Coroutine[object, object, Completed]) -> Completed:
    try:
        return asyncio.run(running)
    except NotStartedError as error:
        remedy = "Install Slurm's commands, or set slurm.bin_dir." if error.missing else "Is this host short of memory?"
        raise CheckFailedError(str(error), remedy) from error


def new_mark() -> str:
    """Return a mark to put behind each field that is asked for."""
    return make_mark(secrets.token_hex(4))


def tiny_resources(settings: SlurmSettings) -> Resources:
    """Return what a tiny job asks for where this site's jobs run. Raises `CheckFailedError`."""
    try:
        tiny = Resources(
            memory_mb=100,
            time_limit=2,
            partition=settings.partition or None,
            account=settings.account or None,
            qos=settings.qos or None,
            constraint=settings.constraint or None,
            reservation=settings.reservation or None,
            gres=settings.gres or None,
            extra_options=check_extra_options(settings.extra_options),
        )
    except ValueError as error:
        raise CheckFailedError(str(error), "Change slurm.extra_options.") from error
    return leave_out(tiny, settings)


def job(name: str, resources: Resources, script: str = "", arguments: tuple[str, ...] = ()) -> Submission:
    """Return a job of the doctor's."""
    return Submission(
        token=name,
        resources=resources,
        folder="/",
        script=script,
        arguments=arguments,
        keeps_logs=False,
        comment="ai-factory doctor",
        warning=0,
    )
