"""What a partition or a QOS allows one job, and what of it is asked too much: pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from api.contract.gpus import gpus_asked
from api.contract.launch import Resources

_MINUTES_OF = re.compile(r"(?:(\d+)-)?(\d+):(\d+)(?::(\d+))?")
_MEGABYTES = {"K": 1 / 1024, "M": 1, "G": 1024, "T": 1024**2, "P": 1024**3}


@dataclass(frozen=True, slots=True, kw_only=True)
class Overrun:
    """One resource of which too much is asked."""

    key: str
    """In a recipe's resources."""
    asked: str
    most: str
    """As a recipe would say it."""
    unit: str
    of: str
    """Whose limit it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobLimits:
    """The most that one job may ask for; `None` is no limit."""

    of: str
    """Whose they are, for people."""
    minutes: int | None = None
    nodes: int | None = None
    cpus_per_node: int | None = None
    memory_per_node: int | None = None
    """Megabytes."""
    gpus_per_node: int | None = None
    cpus: int | None = None
    memory: int | None = None
    """Megabytes."""
    gpus: int | None = None

    def beneath(self, stronger: JobLimits) -> JobLimits:
        """Return what is left of them where others go before: a QOS before an account (Slurm's resource limits)."""
        kinds = [one.name for one in fields(self) if one.name != "of"]
        told: dict[str, Any] = {kind: None for kind in kinds if getattr(stronger, kind) is not None}
        return replace(self, **told)

    def exceeded_by(self, asked: Resources) -> Iterator[Overrun]:
        """Yield what is asked too much; what is left to Slurm is not."""
        nodes, memory, gpus = asked.nodes, asked.memory_mb, gpus_asked(asked)
        for key, wanted, most, unit, suffix in (
            ("time_limit", asked.time_limit, self.minutes, "minutes", ""),
            ("nodes", nodes, self.nodes, "nodes", ""),
            ("cpu", asked.cpu, self.cpus_per_node, "CPUs a node", ""),
            ("cpu", asked.cpu, self.cpus, "CPUs", ""),
            ("memory", memory, self.memory_per_node, "of memory a node", "M"),
            ("memory", None if memory is None else memory * nodes, self.memory, "of memory", "M"),
            ("gpu", -(-gpus // nodes), self.gpus_per_node, "GPUs a node", ""),
            ("gpu", gpus, self.gpus, "GPUs", ""),
        ):
            if most is not None and wanted is not None and wanted > most:
                yield Overrun(key=key, asked=f"{wanted}{suffix}", most=f"{most}{suffix}", unit=unit, of=self.of)


def of_partition(facts: Mapping[str, str], nodes: Sequence[Sequence[str]]) -> JobLimits:
    """Read them from a row of `scontrol --oneliner show partition`, and CPUs, memory and gres of its nodes (sinfo)."""
    cpus = [_number(cpu.rstrip("+")) for cpu, _, _ in nodes]
    memories = [_number(memory.rstrip("+")) for _, memory, _ in nodes]
    return JobLimits(
        of=f"the partition {facts.get('PartitionName')}",
        minutes=minutes(facts.get("MaxTime", "")),
        nodes=_least(_number(facts.get("MaxNodes", "")), _number(facts.get("TotalNodes", ""))),
        cpus_per_node=_least(_number(facts.get("MaxCPUsPerNode", "")), _most(cpus)),
        memory_per_node=_least(_number(facts.get("MaxMemPerNode", "")), _most(memories)),
        gpus_per_node=_most([_gpus(gres) for _, _, gres in nodes]),
    )


def of_quality(name: str, longest: str = "", *traded: str) -> JobLimits:
    """Read them from what sacctmgr shows of a QOS: MaxWall, and MaxTRES, MaxTRESPerUser and GrpTRES."""
    return _of_traded(f"the QOS {name}", longest, *traded)


def of_account(name: str, longest: str, *traded: str) -> JobLimits:
    """Read them from what sacctmgr shows of an account, or of a user in it: MaxWall, and MaxTRES and GrpTRES."""
    return _of_traded(f"the account {name}", longest, *traded)


def _of_traded(of: str, longest: str, *traded: str) -> JobLimits:
    least: dict[str, int] = {}
    for text in traded:
        for kind, count in _tres(text).items():
            least[kind] = min(count, least.get(kind, count))
    return JobLimits(
        of=of,
        minutes=minutes(longest),
        nodes=least.get("node"),
        cpus=least.get("cpu"),
        memory=least.get("mem"),
        gpus=least.get("gres/gpu"),
    )


def minutes(text: str) -> int | None:
    """Read `DAYS-HH:MM:SS` or a part of it, as Slurm prints times; `None` for UNLIMITED and the like."""
    match = _MINUTES_OF.fullmatch(text)
    if match is None:
        return _number(text)
    days, first, second, _ = (int(part or 0) for part in match.groups())
    if match[4] is None and match[1] is None:
        return first  # MM:SS
    return days * 1440 + first * 60 + second


def _tres(text: str) -> dict[str, int]:
    """Read `cpu=8,mem=8000M,gres/gpu=4`; memory in megabytes."""
    found = {}
    for kind, _, value in (item.partition("=") for item in text.split(",")):
        match = re.fullmatch(r"([\d.]+)([KMGTP]?)", value)
        if match is not None:
            found[kind] = int(float(match[1]) * _MEGABYTES[match[2]]) if match[2] else int(float(match[1]))
    return found


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() else None


def _gpus(gres: str) -> int:
    """Count them in what sinfo shows: `gpu:a100:4(S:0-1),gpu:2`."""
    return sum(int(count) for count in re.findall(r"\bgpu(?::[^:,(]+)?:(\d+)", gres))


def _most(values: Iterable[int | None]) -> int | None:
    return max((value for value in values if value is not None), default=None)


def _least(*values: int | None) -> int | None:
    return min((value for value in values if value is not None), default=None)
