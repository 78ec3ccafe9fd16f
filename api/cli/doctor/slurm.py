"""Checks of Slurm through the commands, the environment and the options that the controller uses."""

from __future__ import annotations

import asyncio
import contextlib
import grp
import os
import pwd
import re
import secrets
import shutil
from collections.abc import Coroutine, Mapping
from pathlib import Path
from typing import Any

from api.cli.doctor.check import Check, FailedError, SkippedError
from api.contract.launch import Resources
from api.contract.sbatch_options import check_extra_options
from api.contract.settings import Settings, SlurmSettings, process_environment
from controller.slurm.argv import make_mark, submit_options
from controller.slurm.environment import reading_environment
from controller.slurm.errors import Diagnosis, diagnose, is_without_accounting, reading_trouble
from controller.slurm.runner import Completed, NotStartedError, ProcessRunner

COMMANDS = ("sbatch", "squeue", "sacct", "scancel", "sinfo")
OLDEST = (22, 5)
"""Slurm 22.05: of it, 24.11 and 26.05 the commands' words are known."""


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
        """Run a command that changes nothing; raises `FailedError` where it can't be run at all."""
        return _completed(self._runner.read(argv))

    def change(self, *argv: str) -> Completed:
        """Run sbatch or scancel; raises `FailedError` where it can't be run at all."""
        return _completed(self._runner.change(argv))

    def ask(self, *argv: str) -> str:
        """Run a command that changes nothing; return its output. Raises `FailedError`, with a remedy."""
        completed = self.read(*argv)
        if trouble := reading_trouble(completed, empty=not completed.stdout.strip()):
            raise self.failure(trouble)
        return completed.stdout

    def failure(self, trouble: Diagnosis) -> FailedError:
        """Turn a diagnosis into a failed check. Its remedy names keys of a recipe: here they are the settings'."""
        command = trouble.said.partition(":")[0]
        remedy = trouble.remedy or f"try it by hand: {command}"
        remedy = re.sub("`([a-z_]+)`", self._setting, remedy)
        return FailedError(trouble.said, remedy[0].upper() + remedy[1:])

    def _setting(self, key: re.Match[str]) -> str:
        return f"slurm.{key[1]}" if hasattr(self._settings, key[1]) else key[0]


def _completed(running: Coroutine[Any, Any, Completed]) -> Completed:
    try:
        return asyncio.run(running)
    except NotStartedError as error:
        remedy = "Install Slurm's commands, or set slurm.bin_dir." if error.missing else "Is this host short of memory?"
        raise FailedError(str(error), remedy) from error


def new_mark() -> str:
    """Return a mark to put behind each field that is asked for."""
    return make_mark(secrets.token_hex(4))


class SlurmChecks:
    """The checks, over one set of settings."""

    def __init__(self, slurm: Slurm, settings: Settings) -> None:
        self._slurm = slurm
        self._settings = settings.slurm

    def checks(self) -> list[Check]:
        """Return the checks in their order."""
        return [
            Check("Slurm's commands", self._commands),
            Check("Slurm's version", self._version, needs=("Slurm's commands",)),
            Check("Slurm answers", self._answers, needs=("Slurm's commands",)),
            Check("partition", self._partition, needs=("Slurm answers",)),
            Check("partition is open", self._partition_open, needs=("partition",)),
            Check("account and QOS", self._account, needs=("Slurm answers",)),
            Check("accounting", self._accounting, needs=("Slurm answers",)),
            Check("may submit", self._may_submit, needs=("Slurm answers",)),
        ]

    def _commands(self) -> str:
        missing = self._slurm.missing()
        if missing:
            raise FailedError(
                f"not on this host: {', '.join(missing)}",
                "Run this where Slurm's commands are, install them, or set slurm.bin_dir.",
            )
        conf = self._slurm.conf
        if conf and not Path(conf).is_file():
            raise FailedError(f"slurm.conf is {conf}, where there is no file", "Set slurm.conf to the right path.")
        return ", ".join(COMMANDS)

    def _version(self) -> str:
        said = self._slurm.ask("sbatch", "--version").strip()
        found = re.search(r"(\d+)\.(\d+)", said)
        if found is None:
            raise SkippedError(f"sbatch calls itself {said!r}")
        if (int(found[1]), int(found[2])) < OLDEST:
            oldest = ".".join(f"{part:02d}" for part in OLDEST)
            raise FailedError(
                f"{said} is older than {oldest}, the oldest this was tried with",
                "Use a host with later commands, or set slurm.bin_dir to where they are.",
            )
        return said

    def _answers(self) -> str:
        nodes = self._slurm.ask("sinfo", "--noheader", "--all", "--Node", "--format=%N").split()
        self._slurm.ask("squeue", "--noheader", "--me", "--format=%i")
        return f"{len(set(nodes))} nodes"

    def _partition(self) -> str:
        names = self._slurm.ask("sinfo", "--noheader", "--all", "--format=%P").split()
        wanted = self._settings.partition
        known = sorted({name.rstrip("*") for name in names})
        if not wanted:
            default = next((name.rstrip("*") for name in names if name.endswith("*")), None)
            if default is None:
                raise FailedError(
                    "this cluster has no default partition", f"Set slurm.partition to one of: {', '.join(known)}"
                )
            return f"none set; the cluster's default is {default}"
        missing = [name for name in wanted.split(",") if name not in known]
        if missing:
            raise FailedError(
                f"there is no partition {', '.join(missing)}", f"Set slurm.partition to one of: {', '.join(known)}"
            )
        return wanted

    def _partition_open(self) -> str:
        """Ask whether jobs of this user would ever start there: Slurm takes them also where none does."""
        if self._slurm.where("scontrol") is None:
            raise SkippedError("scontrol is not on this host; see: may submit")
        rows = self._slurm.ask("scontrol", "--oneliner", "--all", "show", "partition").splitlines()
        facts = [dict(word.partition("=")[::2] for word in row.split() if "=" in word) for row in rows if row.strip()]
        wanted = self._settings.partition.split(",") if self._settings.partition else []
        chosen = [p for p in facts if p.get("PartitionName") in wanted or (not wanted and p.get("Default") == "YES")]
        closed = [why for one in chosen if (why := self._closed(one))]
        if closed:
            usable = [str(one.get("PartitionName")) for one in facts if not self._closed(one)]
            raise FailedError(
                "; ".join(closed), f"Set slurm.partition to one of: {', '.join(usable) or '(none)'}, or ask the site."
            )
        times = [f"{one.get('PartitionName')} (at most {one.get('MaxTime', '?')})" for one in chosen]
        return f"this user may use {', '.join(times)}" if times else "nothing is said of it"

    def _closed(self, partition: Mapping[str, str]) -> str:
        """Return why this user's jobs do not start in a partition; "" where they do."""
        name, state = partition.get("PartitionName"), partition.get("State", "UP")
        if state != "UP":
            return f"the partition {name} is {state}"
        groups = partition.get("AllowGroups", "ALL")
        if groups not in ("ALL", "(null)") and os.getuid() != 0 and not set(groups.split(",")) & _own_groups():
            return f"the partition {name} is for the groups {groups} alone"
        account = self._settings.account
        allowed, denied = partition.get("AllowAccounts", "ALL"), partition.get("DenyAccounts", "")
        if account and (account in denied.split(",") or (allowed != "ALL" and account not in allowed.split(","))):
            return f"the partition {name} is not for the account {account}"
        qos, allowed = self._settings.qos, partition.get("AllowQos", "ALL")
        if qos and allowed != "ALL" and qos not in allowed.split(","):
            return f"the partition {name} is not for the QOS {qos}"
        return ""

    def _account(self) -> str:
        account, qos = self._settings.account, self._settings.qos
        user = pwd.getpwuid(os.getuid()).pw_name
        if self._slurm.where("sacctmgr") is None:
            raise SkippedError("sacctmgr is not on this host; see: may submit")
        listing = ("--noheader", "--parsable2", "show", "associations", f"user={user}", "format=Account,QOS")
        answer = self._slurm.read("sacctmgr", *listing)
        if answer.exit_code != 0:
            raise SkippedError(f"{diagnose(answer).said}; see: may submit")
        rows = [line.split("|") for line in answer.stdout.splitlines() if line.count("|") == 1]
        accounts = sorted({row[0] for row in rows})
        if not accounts and account:
            raise FailedError(
                f"{user} has no account at all, as accounting says",
                f"Leave slurm.account out, or ask the site for: sacctmgr add user {user} account={account}",
            )
        if account and account not in accounts:
            raise FailedError(
                f"{user} has no account {account}", f"Set slurm.account to one of: {', '.join(accounts) or '(none)'}"
            )
        levels = sorted({level for row in rows if account in ("", row[0]) for level in row[1].split(",") if level})
        if qos and qos not in levels:
            raise FailedError(
                f"{user} may not use the QOS {qos}", f"Set slurm.qos to one of: {', '.join(levels) or '(none)'}"
            )
        return f"account {account or '(default)'}, QOS {qos or '(default)'}"

    def _accounting(self) -> str:
        answer = self._slurm.read("sacct", "--noheader", "--parsable2", "--allocations", "--format=JobID")
        if is_without_accounting(answer):
            raise SkippedError("this cluster keeps none; how a job ended is then read from its own files")
        if trouble := reading_trouble(answer, empty=False):
            raise self._slurm.failure(trouble)
        return "sacct answers"

    def _may_submit(self) -> str:
        answer = self._slurm.change("sbatch", "--test-only", *job_options(self._settings, "af-doctor"), "--wrap=true")
        if answer.exit_code != 0:
            raise self._slurm.failure(diagnose(answer))
        lines = [line.strip() for line in (answer.stderr or answer.stdout).splitlines() if line.strip()]
        return lines[-1].removeprefix("sbatch: ") if lines else "sbatch says yes"


def _own_groups() -> set[str]:
    names = set()
    for number in {*os.getgroups(), os.getgid()}:
        with contextlib.suppress(KeyError):
            names.add(grp.getgrgid(number).gr_name)
    return names


def job_options(settings: SlurmSettings, name: str) -> tuple[str, ...]:
    """Return sbatch's options for a tiny job where this site's jobs run. Raises `FailedError`."""
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
        raise FailedError(str(error), "Change slurm.extra_options.") from error
    return submit_options(
        name,
        resources,
        output="/dev/null",
        error="/dev/null",
        chdir="/",
        warning_seconds=0,
        comment="ai-factory doctor",
    )
