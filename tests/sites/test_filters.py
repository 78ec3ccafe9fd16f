"""A site that refuses jobs in words of its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.cluster.system import System
from tests.sites.conftest import site

FILTER = """
function slurm_job_submit(job, part_list, uid)
  if job.partition == "short" then
    slurm.log_user("Jobs of this kind must go to partition main")
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


def test_what_it_takes_is_run(system: System) -> None:
    key = system.create()
    system.wait_status(key, "running")
    system.delete(key)
