"""What accounting says of this user: accounts, and what QOS they come with (sacctmgr(1))."""

from __future__ import annotations

import os
import pwd
from collections.abc import Mapping
from dataclasses import dataclass

from api.cli.doctor.check import SkippedError
from api.cli.doctor.slurm import Slurm
from controller.slurm.errors import diagnose

NORMAL = "normal"
"""The QOS of a job for which nobody names one (slurm.conf(5), AccountingStorageEnforce)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Membership:
    """One user's associations."""

    user: str
    default_account: str
    accounts: Mapping[str, tuple[str, ...]]
    """Account -> the QOS that may be asked for."""
    default_qos: Mapping[str, str]
    """Account -> the QOS of jobs that ask for none."""
    enforced: bool
    """Whether Slurm refuses jobs of users and accounts without an association."""

    def account(self, chosen: str) -> str:
        """Return the account of a job."""
        return chosen or self.default_account

    def qos(self, account: str, chosen: str) -> str:
        """Return the QOS of a job; "" where none is heeded."""
        return chosen or (self.default_qos.get(account) or NORMAL if self.enforced else "")


def read_standing(slurm: Slurm) -> Membership:
    """Ask sacctmgr. Raises `SkippedError` where it is not there or does not answer, `CheckFailedError`."""
    slurm.require("sacctmgr")
    try:
        user = pwd.getpwuid(os.getuid()).pw_name
    except KeyError as error:
        raise SkippedError(f"user {os.getuid()} has no name on this host; see: may submit") from error
    rows = _show(slurm, "associations", f"user={user}", "format=Account,QOS,DefaultQOS")
    defaults = _show(slurm, "user", user, "format=DefaultAccount")
    accounts: dict[str, tuple[str, ...]] = {}
    for account, levels, _ in rows:
        accounts[account] = tuple(sorted({*accounts.get(account, ()), *filter(None, levels.split(","))}))
    return Membership(
        user=user,
        default_account=defaults[0][0] if defaults else "",
        accounts=accounts,
        default_qos={account: default for account, _, default in rows},
        enforced="associations" in slurm.config.get("AccountingStorageEnforce", ""),
    )


def _show(slurm: Slurm, *question: str) -> list[list[str]]:
    answer = slurm.read("sacctmgr", "--noheader", "--parsable2", "show", *question)
    if answer.exit_code != 0:
        raise SkippedError(f"{diagnose(answer).said}; see: may submit")
    width = question[-1].count(",") + 1
    rows = [line.split("|") for line in answer.stdout.splitlines()]
    return [row for row in rows if len(row) == width]
