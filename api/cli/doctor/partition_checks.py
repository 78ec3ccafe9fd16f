"""Checks of where this site's jobs go: the partition, the account, the QOS, and whether sbatch would take a job.

Slurm takes jobs that it will never start (a partition that is down, or for others; too much time), and
`sbatch --test-only` does not tell (measured with 22.05): so what scontrol and sacctmgr say is asked first.
"""

from __future__ import annotations

import contextlib
import grp
import os
import time
from collections.abc import Iterator, Sequence
from functools import cached_property

from api.cli.doctor.check import Check, CheckFailedError, SkippedError, WarnedError
from api.cli.doctor.limits import JobLimits, of_account, of_partition, of_quality
from api.cli.doctor.partitions import Asker, Partition, out_of_service
from api.cli.doctor.slurm import Slurm, tiny_resources
from api.cli.doctor.standing import Membership, read_standing
from api.contract.settings import Settings

ACCOUNT, OPEN, SUBMIT = "account and QOS", "partition is open", "may submit"


class JobTarget:
    """Partitions, accounts and QOS, each asked for once."""

    def __init__(self, slurm: Slurm, settings: Settings) -> None:
        self.slurm = slurm
        self.settings = settings.slurm
        self._limits: dict[str, JobLimits] = {}
        self._qos_shown: dict[str, Sequence[str]] = {}
        self._limits_of_accounts: dict[str, Sequence[JobLimits]] = {}

    @cached_property
    def standing(self) -> Membership:
        """What accounting says of this user. Raises `SkippedError`, `CheckFailedError`."""
        return read_standing(self.slurm)

    @cached_property
    def partitions(self) -> Sequence[Partition]:
        """All partitions. Raises `SkippedError` where they can't be seen, `CheckFailedError`."""
        self.slurm.require("scontrol")
        rows = self.slurm.ask("scontrol", "--oneliner", "--all", "show", "partition").splitlines()
        return [Partition.of(row) for row in rows if row.strip()]

    def chosen(self, names: str | None) -> Sequence[Partition]:
        """Return the partitions of a job that names these, with commas between them, or none."""
        wanted = names.split(",") if names else []
        return [one for one in self.partitions if one.name in wanted or (not wanted and one.is_default)]

    def asker(self, account: str, qos: str) -> Asker:
        """Return who asks with these settings, as far as that can be known."""
        with contextlib.suppress(SkippedError, CheckFailedError):
            account = self.standing.account(account)
            qos = self.standing.qos(account, qos)
        groups = None if os.getuid() == 0 else _own_groups()
        return Asker(account=account, qos=qos, groups=groups, reservation=self.settings.reservation)

    def limits(self, partition: Partition) -> JobLimits:
        """Return what a partition allows one job."""
        if partition.name not in self._limits:
            rows = self._sinfo(partition.name, "%c|%m|%G")
            self._limits[partition.name] = of_partition(partition.facts, rows)
        return self._limits[partition.name]

    def qualities(self, partition: Partition | None, name: str) -> Sequence[JobLimits]:
        """Return what the QOS of a job and of its partition allow, those that count first at the front.

        That is the partition's, unless the job's QOS has the flag OverPartQOS (sacctmgr(1)).
        """
        its_own = partition.facts.get("QoS", "") if partition is not None else ""
        names = [name, its_own] if "OverPartQOS" in self._shown(name)[-1] else [its_own, name]
        return [of_quality(one, *self._shown(one)[:-1]) for one in names if one not in ("", "N/A")]

    def _shown(self, qos: str) -> Sequence[str]:
        """Return a QOS's limits and, last, its flags; nothing where these can't be known."""
        if qos not in self._qos_shown:
            self._qos_shown[qos] = ("",)
            question = ("show", "qos", f"name={qos}", "format=MaxWall,MaxTRES,MaxTRESPU,GrpTRES,Flags")
            if qos and self.slurm.where("sacctmgr") is not None:
                answer = self.slurm.read("sacctmgr", "--noheader", "--parsable2", *question)
                rows = [line.split("|") for line in answer.stdout.splitlines() if line.count("|") == 4]
                self._qos_shown[qos] = rows[0] if rows else ("",)
        return self._qos_shown[qos]

    def association(self, account: str) -> Sequence[JobLimits]:
        """Return what an account and those above it allow one job of this user; nothing where that can't be known."""
        if account not in self._limits_of_accounts:
            self._limits_of_accounts[account] = list(self._associations(account))
        return self._limits_of_accounts[account]

    def _associations(self, account: str) -> Iterator[JobLimits]:
        """Go up from account to account; what each user may have of an account's Max limits, his own row tells."""
        asked = "format=User,Partition,ParentName,MaxWall,MaxTRES,GrpTRES"
        passed: set[str] = set()
        while account and account not in passed and self.slurm.where("sacctmgr") is not None:
            passed.add(account)
            answer = self.slurm.read(
                "sacctmgr", "--noheader", "--parsable2", "show", "associations", f"account={account}", asked
            )
            rows = [row for line in answer.stdout.splitlines() if len(row := line.split("|")) == 6]
            for user, partition, _, longest, most, together in rows:
                if user == self.standing.user and not partition:
                    yield of_account(account, longest, most, together)
                elif not user:
                    yield of_account(account, "", together)
            account = next((parent for user, _, parent, *_ in rows if not user), "")

    def without_nodes(self, partition: str) -> str:
        """Return why no node of a partition takes jobs; "" where one does."""
        rows = self._sinfo(partition, "%T|%E|")
        if not out_of_service([state for state, _, _ in rows], reserved=bool(self.settings.reservation)):
            return ""
        said = "; ".join(sorted({_state(state, reason.strip()) for state, reason, _ in rows}))
        return f"no node of the partition {partition} is in service ({said})"

    def reserved_from(self) -> str:
        """Return when the reservation of the settings begins, where that is to come; "" otherwise."""
        if not self.settings.reservation or self.slurm.where("scontrol") is None:
            return ""
        shown = self.slurm.read("scontrol", "--oneliner", "show", "reservation", self.settings.reservation).stdout
        facts = dict(word.partition("=")[::2] for word in shown.split() if "=" in word)
        begins = facts.get("StartTime", "")
        if facts.get("State") != "INACTIVE" or not begins.isdecimal():  # seconds, by SLURM_TIME_FORMAT
            return ""
        return time.strftime("%Y-%m-%d %H:%M", time.localtime(int(begins)))

    def nodes_have(self, field: str) -> list[str]:
        """Return what sinfo shows of the nodes where jobs go, each once."""
        with contextlib.suppress(CheckFailedError, SkippedError):
            rows = [row for one in self.chosen(self.settings.partition) for row in self._sinfo(one.name, field)]
            return sorted({value for (value,) in rows} - {"(null)"})
        return []

    def _sinfo(self, partition: str, fields: str) -> list[list[str]]:
        listing = self.slurm.ask("sinfo", "--noheader", "--local", f"--partition={partition}", f"--format={fields}")
        return [row for line in listing.splitlines() if len(row := line.split("|")) == fields.count("|") + 1]


class PartitionChecks:
    """The checks, over one set of settings."""

    def __init__(self, destination: JobTarget) -> None:
        self._to = destination
        self._slurm = destination.slurm
        self._settings = destination.settings

    def checks(self) -> list[Check]:
        """Return the checks in their order."""
        needs = ("Slurm answers",)
        return [
            Check("partition", self._partition, needs=needs),
            Check(ACCOUNT, self._account, needs=needs),
            Check(OPEN, self._open, needs=("partition",), repeats=(ACCOUNT,)),
            Check(SUBMIT, self._may_submit, needs=needs, repeats=("partition", ACCOUNT, OPEN)),
        ]

    def _partition(self) -> str:
        names = self._slurm.ask("sinfo", "--noheader", "--all", "--format=%P").split()
        wanted = self._settings.partition
        known = sorted({name.rstrip("*") for name in names})
        usable = ", ".join(self._usable(self._to.asker(self._settings.account, self._settings.qos)) or known)
        if not wanted:
            default = next((name.rstrip("*") for name in names if name.endswith("*")), None)
            if default is None:
                raise CheckFailedError(
                    "this cluster has no default partition", f"Set slurm.partition to one of: {usable}"
                )
            return f"none set; the cluster's default is {default}"
        missing = [name for name in wanted.split(",") if name not in known]
        if missing:
            raise CheckFailedError(
                f"there is no partition {', '.join(missing)}", f"Set slurm.partition to one of: {usable}"
            )
        return wanted

    def _account(self) -> str:
        account, qos, standing = self._settings.account, self._settings.qos, self._to.standing
        user, accounts = standing.user, sorted(standing.accounts)
        if not accounts and not standing.enforced:
            return f"accounting does not know {user}, and the cluster does not ask for that"
        if not accounts:
            ask = f"sacctmgr add user {user} account={account or 'ACCOUNT'}"
            raise CheckFailedError(
                f"{user} has no account: Slurm takes no jobs of this user", f"Ask the site for: {ask}"
            )
        if account and account not in accounts:
            raise CheckFailedError(
                f"{user} has no account {account}", f"Set slurm.account to one of: {', '.join(accounts)}"
            )
        levels = sorted({one for name in accounts if account in ("", name) for one in standing.accounts[name]})
        if qos and qos not in levels:
            raise CheckFailedError(
                f"{user} may not use the QOS {qos}", f"Set slurm.qos to one of: {', '.join(levels) or '(none)'}"
            )
        return f"account {account or f'{standing.default_account} (default)'}, QOS {qos or '(default)'}"

    def _open(self) -> str:
        """Ask whether jobs of this user would ever start there."""
        asker, chosen = (
            self._to.asker(self._settings.account, self._settings.qos),
            self._to.chosen(self._settings.partition),
        )
        closed = {one.name: why for one in chosen if (why := one.closed_to(asker) or self._to.without_nodes(one.name))}
        opened = [f"{one.name} (at most {one.facts.get('MaxTime', '?')})" for one in chosen if one.name not in closed]
        if closed and not opened:
            raise CheckFailedError("; ".join(closed.values()), self._remedy(asker, chosen))
        if closed:
            raise WarnedError(
                f"jobs start in {', '.join(opened)} alone: {'; '.join(closed.values())}", "Change slurm.partition."
            )
        return f"this user may use {', '.join(opened)}" if opened else "nothing is said of it"

    def _remedy(self, asker: Asker, closed: Sequence[Partition]) -> str:
        """Return what would open a partition: another one, or another account or QOS of this user's."""
        usable = self._usable(asker)
        ways = [f"slurm.partition to one of: {', '.join(usable)}"] if usable else []
        with contextlib.suppress(SkippedError, CheckFailedError):
            standing, settings = self._to.standing, self._settings
            accounts = [
                a for a in standing.accounts if any(not p.closed_to(self._to.asker(a, settings.qos)) for p in closed)
            ]
            levels = [
                level
                for level in standing.accounts.get(asker.account, ())
                if any(not p.closed_to(self._to.asker(settings.account, level)) for p in closed)
            ]
            ways += (
                [f"slurm.account to one of: {', '.join(accounts)}"]
                if accounts and asker.account not in accounts
                else []
            )
            ways += [f"slurm.qos to one of: {', '.join(levels)}"] if levels and asker.qos not in levels else []
        shown = f"scontrol show partition {closed[0].name}" if any(p.closed_to(asker) for p in closed) else "sinfo -R"
        ask = f"ask the site about it: {shown}"
        return f"Set {', or '.join(ways)}. Or {ask}" if ways else ask[0].upper() + ask[1:]

    def _usable(self, asker: Asker) -> Sequence[str]:
        """Return the partitions in which jobs would start; none where that can't be known."""
        with contextlib.suppress(SkippedError, CheckFailedError):
            return [
                one.name
                for one in self._to.partitions
                if not one.closed_to(asker) and not self._to.without_nodes(one.name)
            ]
        return []

    def _may_submit(self) -> str:
        if begins := self._to.reserved_from():
            raise CheckFailedError(
                f"the reservation {self._settings.reservation} begins at {begins}: until then no job starts in it",
                "Leave slurm.reservation out until then, or name one that is active (scontrol show reservation).",
            )
        try:
            return self._slurm.try_out(tiny_resources(self._settings))
        except CheckFailedError as error:
            raise CheckFailedError(str(error), f"{error.remedy}{self._offered()}") from error

    def _offered(self) -> str:
        """Return what the nodes have of what the settings ask for by its name, as sentences."""
        said = ""
        for key, field in (("gres", "%G"), ("constraint", "%f")):
            if asked := getattr(self._settings, key):
                names = ", ".join(self._to.nodes_have(field)) or "none"
                said += f". slurm.{key} is {asked}; the nodes have: {names}"
        return said


def _state(state: str, reason: str) -> str:
    silent = ", does not answer" if state.endswith("*") else ""
    return f"{state.rstrip('*')}{silent}, {reason}".removesuffix(", none")


def _own_groups() -> set[str]:
    names = set()
    for number in {*os.getgroups(), os.getgid()}:
        with contextlib.suppress(KeyError):
            names.add(grp.getgrgid(number).gr_name)
    return names
