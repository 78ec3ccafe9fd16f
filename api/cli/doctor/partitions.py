"""Who may use a partition, and what it allows: rows of `scontrol show partition`, read and judged. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Self

_OPEN_TO_ALL = frozenset({"", "ALL", "(null)", "N/A"})
_OUT_OF_SERVICE = re.compile("down|drain|drng|fail|maint|unk|inval|error|boot_fail", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asker:
    """Who would submit; "" is not known."""

    account: str
    qos: str
    groups: Collection[str] | None
    """`None`: root, to whom every group's partition is open."""
    reservation: str = ""


@dataclass(frozen=True, slots=True)
class Partition:
    """One partition, as `scontrol --oneliner show partition` tells of it (scontrol(1))."""

    facts: Mapping[str, str]

    @classmethod
    def of(cls, row: str) -> Self:
        """Read one line."""
        return cls(dict(word.partition("=")[::2] for word in row.split() if "=" in word))

    @property
    def name(self) -> str:
        """Its name."""
        return self.facts.get("PartitionName", "")

    @property
    def is_default(self) -> bool:
        """Whether jobs come here that name none."""
        return self.facts.get("Default") == "YES"

    def closed_to(self, asker: Asker) -> str:
        """Return why jobs do not start here; "" where they do."""
        if (state := self.facts.get("State", "UP")) != "UP":
            return f"the partition {self.name} is {state}"
        if self.facts.get("TotalNodes") == "0":
            return f"the partition {self.name} has no nodes"
        if (least := self.facts.get("MinNodes", "")).isdecimal() and int(least) > 1:
            return f"the partition {self.name} takes only jobs of {least} nodes or more"
        if self.facts.get("RootOnly") == "YES" and asker.groups is not None:
            return f"the partition {self.name} is for root alone"
        if self.facts.get("ReqResv") == "YES" and not asker.reservation:
            return f"the partition {self.name} is for jobs with a reservation (slurm.reservation)"
        groups = self._names("AllowGroups")
        if groups is not None and asker.groups is not None and not groups & set(asker.groups):
            return f"the partition {self.name} is for the groups {_listed(groups)} alone"
        for kind, one, allowed, denied in (
            ("account", asker.account, self._names("AllowAccounts"), self._names("DenyAccounts")),
            ("QOS", asker.qos, self._names("AllowQos"), self._names("DenyQos")),
        ):
            if one and allowed is not None and one not in allowed:
                return f"the partition {self.name} is not for the {kind} {one}, but for {_listed(allowed)}"
            if one and allowed is None and denied is not None and one in denied:
                return f"the partition {self.name} is not for the {kind} {one}"
        return ""

    def _names(self, key: str) -> set[str] | None:
        text = self.facts.get(key, "")
        return None if text in _OPEN_TO_ALL else set(text.split(","))


def out_of_service(nodes: Collection[str], *, reserved: bool) -> bool:
    """Whether no node of these states (sinfo(1), NODE STATE CODES) takes a job; `reserved`: one with a reservation."""
    return bool(nodes) and all(
        (_OUT_OF_SERVICE.search(state) and not (reserved and state == "maint")) or state.endswith("*")
        for state in nodes
    )


def _listed(names: Collection[str]) -> str:
    return ", ".join(sorted(names))
