"""The GPUs of a job, of each vendor: what a container gets to see of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from controller.wrapper.sandbox.gpus import container_options

NVIDIA, AMD, INTEL = ["--nv"], ["--rocm"], ["--bind", "/dev/dri"]


@pytest.fixture
def devices(tmp_path: Path) -> Path:
    (tmp_path / "dri").mkdir()
    return tmp_path


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (["nvidiactl", "nvidia0", "dri/renderD128"], NVIDIA),
        (["nvidia0"], NVIDIA),
        (["kfd", "dri/renderD128", "dri/card0"], AMD),
        (["kfd", "nvidiactl"], [*AMD, *NVIDIA]),
        (["dri/renderD128"], INTEL),
        (["dri/card0"], NVIDIA),
        ([], NVIDIA),
    ],
)
def test_they_are_found_on_the_node(devices: Path, files: list[str], expected: list[str]) -> None:
    for name in files:
        (devices / name).touch()
    assert container_options(True, None, {}, devices) == expected


@pytest.mark.parametrize(("vendor", "expected"), [("nvidia", NVIDIA), ("amd", AMD), ("intel", INTEL)])
@pytest.mark.parametrize("asked", [True, False])
def test_a_vendor_that_is_told_is_believed(devices: Path, asked: bool, vendor: str, expected: list[str]) -> None:
    (devices / "nvidiactl").touch()
    assert container_options(asked, vendor, {}, devices) == expected


def test_a_job_without_gpus_sees_none(devices: Path) -> None:
    (devices / "nvidiactl").touch()
    assert container_options(False, None, {"SLURM_JOB_ID": "7"}, devices) == []


def test_a_job_that_slurm_gave_gpus_has_them_however_they_were_asked_for(devices: Path) -> None:
    (devices / "kfd").touch()
    assert container_options(False, None, {"SLURM_JOB_GPUS": "0,1"}, devices) == AMD
