"""Slurm, asked as the controller asks it: with its runner, its environment, its options and its table of errors."""

from __future__ import annotations

import asyncio
import re
import secrets
import shutil
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from api.cli.doctor.check import CheckFailedError, WarnedError
from api.contract.launch import Resources, Submission
from api.contract.sbatch_options import check_extra_options
from api.contract.settings import SlurmSettings, process_environment
from controller.slurm.argv import address_command, list_command, make_mark
from controller.slurm.environment import reading_environment
from controller.slurm.errors import Diagnosis, reading_trouble
from controller.slurm.parse import GarbledError, parse_addresses, read_listing
from controller.slurm.runner import Completed, NotStartedError, ProcessRunner

_Answer = TypeVar("_Answer")

COMMANDS = ("sbatch", "squeue", "sacct", "scancel", "sinfo")

HIDDEN = (
    "the site hides the addresses of its nodes (PrivateData), so they are called by their names",
    "See that this host can resolve the nodes' names (getent hosts NODE), or ask the site to show its nodes and "
    "partitions to you.",
)


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

    def read(self, *argv: str) -> Completed:
        """Run a command that changes nothing; raises `CheckFailedError` where it can't be run at all."""
        return _completed(self._runner.read(argv))

    def change(self, *argv: str) -> Completed:
        """Run sbatch or scancel; raises `CheckFailedError` where it can't be run at all."""
        return _completed(self._runner.change(argv))

    def ask(self, *argv: str) -> str:
        """Run a command that changes nothing; return its output. Raises `CheckFailedError`, with a remedy."""
        completed = self.read(*argv)
        if trouble := reading_trouble(completed, empty=not completed.stdout.strip()):
            raise self.failure(trouble)
        return completed.stdout

    def listed(self, name: str) -> list[tuple[str, str, str]]:
        """Return state, node and reason of the jobs whose name begins so, out of the listing that the controller reads.

        Raises `CheckFailedError`, with a remedy.
        """
        mark = new_mark()
        rows = self._proved(list_command(mark), lambda text: read_listing(text, mark, name, before={}))
        return [(job.state, job.node or "", job.reason) for _, job in rows]

    def addresses(self) -> dict[str, str]:
        """Return every node's address, as the controller reads them. Raises `CheckFailedError`, with a remedy."""
        mark = new_mark()
        return self._proved(address_command(mark), lambda text: parse_addresses(text, mark))

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

    def failure(self, trouble: Diagnosis) -> CheckFailedError:
        """Turn a diagnosis into a failed check. Its remedy names keys of a recipe: here they are the settings'."""
        command = trouble.said.partition(":")[0]
        remedy = trouble.remedy or f"try it by hand: {command}"
        remedy = re.sub("`([a-z_]+)`", self._setting, remedy)
        return CheckFailedError(trouble.said, remedy[0].upper() + remedy[1:])

    def _setting(self, key: re.Match[str]) -> str:
        return f"slurm.{key[1]}" if hasattr(self._settings, key[1]) else key[0]


def _completed(running: Coroutine[Any, Any, Completed]) -> Completed:
    try:
        return asyncio.run(running)
    except NotStartedError as error:
        remedy = "Install Slurm's commands, or set slurm.bin_dir." if error.missing else "Is this host short of memory?"
        raise CheckFailedError(str(error), remedy) from error


def new_mark() -> str:
    """Return a mark to put behind each field that is asked for."""
    return make_mark(secrets.token_hex(4))


def tiny_job(settings: SlurmSettings, name: str, script: str = "", arguments: tuple[str, ...] = ()) -> Submission:
    """Return a tiny job where this site's jobs run. Raises `CheckFailedError`."""
    try:
        resources = Resources(
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
