"""What becomes of a replica when the job of the attempt that stands for it ends, in words for people."""

from __future__ import annotations

from api.contract.launch import LaunchSpec

HANDED_OVER = "handed over before it"


def what_follows(spec: LaunchSpec | None, *, wanted: bool, ends: bool, draining: bool) -> str:
    """Return what happens at the end of a job, by what is wanted now; empty where no end is known.

    `ends`: whether its end is known. `draining`: whether another attempt has its traffic.
    """
    if not wanted:
        return "nothing: the service is stopped"
    if draining:
        return "nothing: another attempt has its traffic, and it is ended once nothing is in flight"
    if spec is None or not ends:
        return ""
    if spec.kind == "job":
        return "started anew after it"
    if spec.volumes:
        return "replaced after it: its volume allows no second engine"
    if spec.update_strategy == "recreate":
        return "replaced after it: its recipe says update.strategy: recreate"
    return HANDED_OVER
