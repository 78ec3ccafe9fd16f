"""Whether a job waits for others, or asks for more than a limit would ever allow it: what scontrol says of both. Pure.

squeue gives both the same reason (`AssocGrpCpuLimit`, `QOSMaxGRESPerUser`). "show job" and "show assoc_mgr" of
scontrol(1) tell what it asks for and what may be had; measured with 22.05, where any user may ask.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

_UNITS = {"": 1.0, "K": 1 / 1024, "M": 1.0, "G": 1024.0, "T": 1024.0**2, "P": 1024.0**3}
"""Of memory, in megabytes, as limits are told."""
_KINDS = {"Grp": "GrpTRES", "PerUser": "MaxTRESPU", "PerAccount": "MaxTRESPA"}


@dataclass(frozen=True, slots=True)
class Asked:
    """What a job asks for, and on whose account."""

    account: str
    qos: str
    resources: dict[str, float]
    """By trackable resource: `cpu`, `mem`, `node`, `gres/gpu`."""


def job_command(job_id: int) -> tuple[str, ...]:
    """Return the question what a job asks for."""
    return ("scontrol", "--local", "--oneliner", "show", "job", str(job_id))


def limits_command(user: str, qos: str) -> tuple[str, ...]:
    """Return the question what a user's associations, those above them, and a QOS allow."""
    return ("scontrol", "--local", "show", "assoc_mgr", "flags=assoc,qos", f"users={user}", f"qos={qos}")


def read_asked(text: str) -> Asked | None:
    """Read the answer to `job_command`; `None` if it says nothing of that."""
    words = dict(word.partition("=")[::2] for word in text.split() if "=" in word)
    resources = words.get("ReqTRES") or words.get("TRES")
    if not resources or "Account" not in words or "QOS" not in words:
        return None
    return Asked(words["Account"], words["QOS"], dict(_amounts(resources)))


def excess(asked: Asked, text: str, reason: str) -> str | None:
    """Return in a sentence what it asks for above a limit of that kind, by the answer to `limits_command`.

    `None` if there is nothing: then it waits for others.
    """
    kind = next((name for word, name in _KINDS.items() if word in reason), "GrpTRES")
    is_of_qos = reason.startswith("QOS")
    records = _qos_records(text, asked.qos) if is_of_qos else _association_records(text, asked.account)
    whose = f"the QOS {asked.qos}" if is_of_qos else f"the account {asked.account}"
    for record in records:
        for line in re.findall(rf"\b{kind}=(\S*)", record):
            for name, limit in re.findall(r"([\w/:]+)=(\d+)\(", line):
                if asked.resources.get(name, 0.0) > float(limit):
                    return f"It asks for {name}={asked.resources[name]:g}, and {whose} may have {name}={limit} in all"
    return None


def _amounts(text: str) -> Iterator[tuple[str, float]]:
    for name, number, unit in re.findall(r"([\w/:]+)=([\d.]+)([KMGTP]?)", text):
        yield name, float(number) * (_UNITS[unit] if name == "mem" else 1)


def _qos_records(text: str, qos: str) -> list[str]:
    return [record for record in re.split(r"^(?=QOS=)", text, flags=re.MULTILINE) if record.startswith(f"QOS={qos}(")]


def _association_records(text: str, account: str) -> list[str]:
    """Return those of an account and of all above it."""
    records = re.split(r"^(?=ClusterName=)", text.partition("QOS Records")[0], flags=re.MULTILINE)[1:]
    found: list[str] = []
    while account:
        mine = [record for record in records if re.search(rf"\bAccount={re.escape(account)} ", record)]
        found += mine
        records = [record for record in records if record not in mine]
        parents = [match[1] for record in mine if (match := re.search(r"\bParentAccount=([^\s(]+)\(", record))]
        account = parents[0] if parents else ""
    return found
