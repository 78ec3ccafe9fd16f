"""GPUs mean the same to Slurm's command line, the ceilings and the container, in whichever words they are asked for."""

from __future__ import annotations

from typing import Any

import pytest

from api.contract.gpus import gpus_asked, has_gpus
from api.contract.launch import Resources


@pytest.mark.parametrize(
    ("resources", "count"),
    [
        ({}, 0),
        ({"gpu": 2}, 2),
        ({"gpu": 2, "nodes": 3}, 6),
        ({"gres": "gpu"}, 1),
        ({"gres": "gpu:a100"}, 1),
        ({"gres": "gpu:4"}, 4),
        ({"gres": "shard:8,gpu:a100:2,gpu:h100:1", "nodes": 2}, 6),
        ({"gres": "gpumem:80"}, 0),
        ({"extra_options": ("--gpus=a100:2,h100:1",), "nodes": 2}, 3),
        ({"extra_options": ("--gpus-per-node=2",), "nodes": 2}, 4),
        ({"extra_options": ("--gpus-per-task=2", "--ntasks=3")}, 6),
        ({"extra_options": ("--gpus-per-task=2", "--ntasks-per-node=3"), "nodes": 2}, 12),
        ({"extra_options": ("--gpus-per-socket=2", "--sockets-per-node=2"), "nodes": 2}, 8),
        ({"extra_options": ("--gpus=8", "--gpus-per-node=4"), "nodes": 2}, 8),
        ({"extra_options": ("--contiguous", "--tmp=10G")}, 0),
    ],
)
def test_what_a_job_asks_for(resources: dict[str, Any], count: int) -> None:
    assert gpus_asked(Resources(**resources)) == count
    assert has_gpus(Resources(**resources)) == (count > 0)


@pytest.mark.parametrize("gres", ["shard:8", "gres/mps:50", "nvme:1,shard:1"])
def test_a_part_of_one_is_one_to_the_container_and_none_to_the_ceilings(gres: str) -> None:
    assert has_gpus(Resources(gres=gres))
    assert gpus_asked(Resources(gres=gres)) == 0
