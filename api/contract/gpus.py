"""GPUs that a job asks Slurm for, in whichever of its words: pure.

They are asked by `gpu`, by `gres` or by sbatch's own options. A job asks in one of these ways: of two, sbatch would
take one and be silent about the other (`--gpus-per-node=4 --gres=gpu:1` gives one GPU; measured with 22.05).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from api.contract.launch import Resources

OPTIONS = frozenset({"--gpus", "--gpus-per-node", "--gpus-per-task", "--gpus-per-socket"})
"""sbatch's options that ask for GPUs (sbatch(1))."""

_WHOLE = re.compile(r"(gres/)?gpu(:|=|$)")
_SHARED = re.compile(r"(gres/)?(gpu|shard|mps)(:|=|$)")
"""Kinds of generic resources that are GPUs, or parts of them (gres.conf(5))."""


def name_of(option: str) -> str:
    """Return the name of an sbatch option of the form `--name` or `--name=value`."""
    return option.partition("=")[0]


def ask_in_options(options: Iterable[str]) -> bool:
    """Whether sbatch options ask for GPUs."""
    return any(name_of(option) in OPTIONS for option in options)


def ask_in_gres(gres: str | None) -> bool:
    """Whether generic resources are GPUs, or parts of them."""
    return any(_SHARED.match(word) for word in _words(gres))


def without_gpus(gres: str | None) -> str | None:
    """Return the generic resources that are no GPUs; `None` if there are none."""
    return ",".join(word for word in _words(gres) if not _SHARED.match(word)) or None


def has_gpus(resources: Resources) -> bool:
    """Whether a job asks for GPUs, or for parts of them."""
    return resources.gpu > 0 or ask_in_gres(resources.gres) or ask_in_options(resources.extra_options)


def gpus_asked(resources: Resources) -> int:
    """Return how many whole GPUs a job asks for on all its nodes. Parts of one (`shard`, `mps`) count as none."""
    options = _values(resources.extra_options)
    tasks = int(options.get("ntasks") or resources.nodes * int(options.get("ntasks-per-node") or 1))
    sockets = resources.nodes * int(options.get("sockets-per-node") or 1)
    a_node = resources.gpu + sum(_count(word) for word in _words(resources.gres) if _WHOLE.match(word))
    return max(
        resources.nodes * a_node,
        _count(options.get("gpus")),
        resources.nodes * _count(options.get("gpus-per-node")),
        tasks * _count(options.get("gpus-per-task")),
        sockets * _count(options.get("gpus-per-socket")),
    )


def _values(options: Iterable[str]) -> Mapping[str, str]:
    """Return each option's value, the last of those that are given twice."""
    return dict(option[2:].partition("=")[::2] for option in options)


def _words(gres: str | None) -> list[str]:
    return (gres or "").split(",")


def _count(text: str | None) -> int:
    """Count `2`, `a100:2`, `a100:2,h100:1`; a type alone is one."""
    if text is None:
        return 0
    found = [re.search(r"(?:^|[:=])([0-9]+)(?:\([^)]*\))?$", word) for word in text.split(",")]
    return sum(int(match[1]) if match else 1 for match in found)
