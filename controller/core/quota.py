"""Ceilings on GPUs: what keeps a service from taking more."""

from __future__ import annotations

from dataclasses import dataclass

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


def _gpus(count: int) -> str:
    return "1 GPU" if count == 1 else f"{count} GPUs"
