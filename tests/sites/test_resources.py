"""A site that gives memory itself, and refuses jobs that ask for it; and GPUs in each of sbatch's words."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.cluster.system import System
from tests.sites.conftest import site

CPUS = 4
"""With which memory enough comes."""

FILTER = """
function slurm_job_submit(job, part_list, uid)
  if job.pn_min_memory ~= nil and job.pn_min_memory < 2 ^ 62 then
    slurm.log_user("Memory comes with the CPUs here: leave --mem out")
    return slurm.ERROR
  end
  return slurm.SUCCESS
end

function slurm_job_modify(job, record, part_list, uid)
  return slurm.SUCCESS
end

return slurm.SUCCESS
"""


@pytest.fixture(scope="module")
def system(apptainer: str) -> Iterator[System]:
    with site(apptainer, etc={"job_submit.lua": FILTER}, EXTRA="JobSubmitPlugins=lua") as system:
        yield system


def allocated(system: System, key: str) -> str:
    return system.slurm("scontrol", "-o", "show", "job", str(system.open_attempt(key)["job_id"]))


@pytest.mark.parametrize(
    ("options", "gpus"),
    [
        ({"extra_options": ["--gpus-per-node=2"]}, 2),
        ({"gpu": 1, "extra_options": ["--gpus=2"]}, 2),
        ({"gres": "gpu:2"}, 2),
        ({"gpu": 1}, 1),
        ({}, 0),
    ],
)
def test_a_service_leaves_memory_to_slurm_and_has_the_gpus_it_asks_for(
    system: System, options: dict[str, object], gpus: int
) -> None:
    key = system.create(resources={"memory": "site", "cpu": CPUS, **options})
    system.wait_status(key, "running")
    told = allocated(system, key)
    assert ("gres/gpu" in told) == (gpus > 0)
    if gpus:
        assert f"gres:gpu:{gpus}" in told.replace("gres/gpu:", "gres:gpu:") or f"gres/gpu={gpus}" in told
    assert [row[0] for row in system.sql("SELECT gpus FROM attempts WHERE service_id = ?", key)] == [gpus]
    system.delete(key)


def test_a_site_leaves_it_out_for_all(system: System) -> None:
    for program in ("api", "controller"):
        system.kill(program)
    system.configure("[slurm]", '[slurm]\nleave_out = ["memory"]')
    system.start()
    key = system.create(resources={"memory": "1G", "cpu": CPUS})
    system.wait_status(key, "running")
    system.delete(key)
