"""Ceilings on GPUs: how many a job asks for, and what keeps a service from taking more."""

from __future__ import annotations

import re
from dataclasses import dataclass

from api.contract.launch import Resources
from controller.core.observed import Quota


def spent(quota: Quota | None) -> str | None:
    """Say that the GPU-hours are used up; `None` while they are not."""
    if quota is None:
        return None
    if 0 < quota.gpu_hours <= quota.hours:
        return f"All services together may use {quota.gpu_hours:g} GPU-hours a month (quota.gpu_hours), and have."
    if 0 < quota.gpu_hours_per_service <= quota.hours_of_service:
        allowed = f"{quota.gpu_hours_per_service:g} GPU-hours a month (quota.gpu_hours_per_service)"
        return f"A service may use {allowed}, and it has."
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Excess:
    """What keeps a replica from being tried."""

    message: str
    others_may_help: bool = False
    """Whether it has only to wait for GPUs that other services hold."""


def excess(quota: Quota | None, needed: int, held: int) -> Excess | None:
    """Say why a replica that needs so many GPUs may not be tried beside those its service holds; `None` if it may."""
    if quota is None or needed == 0:
        return None
    if 0 < quota.gpus_per_service < held + needed:
        allowed = f"a service may hold {quota.gpus_per_service} (quota.gpus_per_service)"
        return Excess(message=f"A replica needs {_gpus(needed)}, and {allowed}.")
    used_up = spent(quota)
    if used_up is not None:
        return Excess(message=used_up)
    if 0 < quota.gpus < quota.held_by_others + held + needed:
        message = f"A replica needs {_gpus(needed)}, and all services together may hold {quota.gpus} (quota.gpus)."
        return Excess(message=message, others_may_help=True)
    return None


def gpus_asked(resources: Resources) -> int:
    """Return how many GPUs a job asks for: by `gpu`, by `gres`, by `--gpus`, `--gpus-per-node` and `--gpus-per-task`.

    What sbatch(1) calls `--gpus-per-socket` is not counted: only Slurm knows the sockets.
    """
    options = dict(option[2:].partition("=")[::2] for option in resources.extra_options)
    a_node = resources.gpu + _in_gres(resources.gres) + _count(options.get("gpus-per-node"))
    tasks = int(options.get("ntasks") or resources.nodes * int(options.get("ntasks-per-node") or 1))
    return resources.nodes * a_node + _count(options.get("gpus")) + tasks * _count(options.get("gpus-per-task"))


def _in_gres(gres: str | None) -> int:
    """Count the GPUs in `gpu`, `gpu:2`, `gpu:a100:2`, with others between commas (sbatch(1), --gres)."""
    words = [word.removeprefix("gres/") for word in (gres or "").split(",")]
    return sum(_count(word) for word in words if re.match(r"gpu(:|=|$)", word))


def _count(text: str | None) -> int:
    """Count `2`, `a100:2`, `a100:2,h100:1`; a type alone is one."""
    if text is None:
        return 0
    found = [re.search(r"(?:^|[:=])([0-9]+)(?:\([^)]*\))?$", word) for word in text.split(",")]
    return sum(int(match[1]) if match else 1 for match in found)


def _gpus(count: int) -> str:
    return "1 GPU" if count == 1 else f"{count} GPUs"
