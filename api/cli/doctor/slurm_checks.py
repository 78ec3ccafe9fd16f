"""Checks of Slurm."""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
import re
from collections.abc import Mapping
from pathlib import Path

from api.cli.doctor.check import Check, CheckFailedError, SkippedError, WarnedError
from api.cli.doctor.slurm import COMMANDS, Slurm, tiny_job
from api.contract.settings import Settings
from controller.slurm.argv import submit_options
from controller.slurm.errors import diagnose, is_without_accounting, reading_trouble

OLDEST = (22, 5)
"""Slurm 22.05: of it, 24.11 and 26.05 the commands' words are known."""

_SEEN_BY = {"proctrack/linuxproc": "its parents", "proctrack/pgid": "its process group"}
"""What Slurm goes by, where it has no cgroup."""


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
            Check("ends of jobs", self._tracking, needs=("Slurm answers",)),
            Check("may submit", self._may_submit, needs=("Slurm answers",)),
        ]

    def _commands(self) -> str:
        missing = self._slurm.missing()
        if missing:
            raise CheckFailedError(
                f"not on this host: {', '.join(missing)}",
                "Run this where Slurm's commands are, install them, or set slurm.bin_dir.",
            )
        conf = self._slurm.conf
        if conf and not Path(conf).is_file():
            raise CheckFailedError(f"slurm.conf is {conf}, where there is no file", "Set slurm.conf to the right path.")
        return ", ".join(COMMANDS)

    def _version(self) -> str:
        said = self._slurm.ask("sbatch", "--version").strip()
        found = re.search(r"(\d+)\.(\d+)", said)
        if found is None:
            raise SkippedError(f"sbatch calls itself {said!r}")
        if (int(found[1]), int(found[2])) < OLDEST:
            oldest = ".".join(f"{part:02d}" for part in OLDEST)
            raise CheckFailedError(
                f"{said} is older than {oldest}, the oldest this was tried with",
                "Use a host with later commands, or set slurm.bin_dir to where they are.",
            )
        return said

    def _answers(self) -> str:
        self._slurm.listed("")
        return f"{len(self._slurm.addresses())} nodes"

    def _partition(self) -> str:
        names = self._slurm.ask("sinfo", "--noheader", "--all", "--format=%P").split()
        wanted = self._settings.partition
        known = sorted({name.rstrip("*") for name in names})
        if not wanted:
            default = next((name.rstrip("*") for name in names if name.endswith("*")), None)
            if default is None:
                raise CheckFailedError(
                    "this cluster has no default partition", f"Set slurm.partition to one of: {', '.join(known)}"
                )
            return f"none set; the cluster's default is {default}"
        missing = [name for name in wanted.split(",") if name not in known]
        if missing:
            raise CheckFailedError(
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
            raise CheckFailedError(
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
            raise CheckFailedError(
                f"{user} has no account at all, as accounting says",
                f"Leave slurm.account out, or ask the site for: sacctmgr add user {user} account={account}",
            )
        if account and account not in accounts:
            raise CheckFailedError(
                f"{user} has no account {account}", f"Set slurm.account to one of: {', '.join(accounts) or '(none)'}"
            )
        levels = sorted({level for row in rows if account in ("", row[0]) for level in row[1].split(",") if level})
        if qos and qos not in levels:
            raise CheckFailedError(
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

    def _tracking(self) -> str:
        """Ask what Slurm sees, and so ends, of a job that is over (slurm.conf(5), ProctrackType)."""
        if self._slurm.where("scontrol") is None:
            raise SkippedError("scontrol is not on this host")
        found = re.search(r"^ProctrackType\s*=\s*(\S+)", self._slurm.ask("scontrol", "show", "config"), re.MULTILINE)
        if found is None:
            raise SkippedError("scontrol does not say what ProctrackType is")
        if found[1] == "proctrack/cgroup":
            return "proctrack/cgroup: all that a job started ends with it"
        raise WarnedError(
            f"{found[1]}: a process that leaves {_SEEN_BY.get(found[1], 'what Slurm looks at')} may outlive its job. "
            "An engine's guard and the kernel's signal to its process group end the engine all the same, but what "
            "leaves that group too, outside of a container, may keep its GPU when the guard is killed",
            "Ask the site for ProctrackType=proctrack/cgroup in slurm.conf.",
        )

    def _may_submit(self) -> str:
        answer = self._slurm.change(
            "sbatch", "--test-only", *submit_options(tiny_job(self._settings, "af-doctor")), "--wrap=true"
        )
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
