"""The GPUs of a job: how a container gets to see them, and the variables that name them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

VARIABLES = (
    "CUDA_VISIBLE_DEVICES",
    "CUDA_DEVICE_ORDER",
    "NVIDIA_",
    "HIP_VISIBLE_DEVICES",
    "ROCR_VISIBLE_DEVICES",
    "GPU_DEVICE_ORDINAL",
    "ZE_AFFINITY_MASK",
    "ONEAPI_DEVICE_SELECTOR",
)
"""Variables (or beginnings of their names) of the job that tell an engine its GPUs, by number or UUID (gres(5))."""

OF_THE_JOB = "SLURM_JOB_GPUS"
"""Slurm sets it in a job that has GPUs, however they came to it (sbatch(1), OUTPUT ENVIRONMENT VARIABLES)."""

DEVICES = Path("/dev")

_SIGNS = (("nvidia", "nvidiactl"), ("nvidia", "nvidia0"), ("amd", "kfd"))
"""Whose GPUs a node has by which device's file."""

_OPTIONS = {"nvidia": ["--nv"], "amd": ["--rocm"], "intel": ["--bind", "/dev/dri"]}
"""Apptainer has no option of its own for Intel's (apptainer-exec(1))."""


def container_options(asked: bool, vendor: str | None, job: Mapping[str, str], devices: Path = DEVICES) -> list[str]:
    """Return Apptainer's options for a job's GPUs: a vendor's that is told, else those that the node has.

    Where GPUs are asked for and none is found, `--nv`: Apptainer then says what it misses.
    """
    if vendor is not None:
        return list(_OPTIONS[vendor])
    if not asked and OF_THE_JOB not in job:
        return []
    return [option for found in _found(devices) for option in _OPTIONS[found]] or ["--nv"]


def _found(devices: Path) -> list[str]:
    found = sorted({vendor for vendor, name in _SIGNS if (devices / name).exists()})
    if not found and any(devices.glob("dri/renderD*")):
        return ["intel"]
    return found
