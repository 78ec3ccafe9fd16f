"""A site whose commands themselves refuse jobs, before Slurm hears of them (cli_filter)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.cluster.system import System
from tests.sites.conftest import site

FILTER = """
function slurm_cli_setup_defaults(options, early_pass)
  return slurm.SUCCESS
end

function slurm_cli_pre_submit(options, pack_offset)
  if options["partition"] == "short" then
    slurm.log_error("Say which project it is for")
    return slurm.ERROR
  end
  return slurm.SUCCESS
end

function slurm_cli_post_submit(offset, job_id, step_id)
  return slurm.SUCCESS
end
"""


@pytest.fixture(scope="module")
def system(apptainer: str) -> Iterator[System]:
    with site(apptainer, etc={"cli_filter.lua": FILTER}, EXTRA="CliFilterPlugins=lua") as system:
        yield system


def test_its_words_are_told_and_it_is_not_tried_again(system: System) -> None:
    key = system.create(resources={"partition": "short"})
    service = system.wait_status(key, "failed")
    assert "Say which project it is for" in service["message"]
    assert [a["outcome"] for a in system.attempts(key)] == ["SubmitRejected"]
    system.delete(key)
