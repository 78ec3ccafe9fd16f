"""A site that refuses jobs in words of its own."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tests.cluster.system import System, wait_for
from tests.sites.conftest import command_line, site

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


def words_of(system: System, key: str) -> str:
    """Return what people find of a service: its message, its history and its description."""
    told = [command_line(system, "services", verb, key)[1] for verb in ("history", "events", "describe")]
    assert all("kind" in one for one in told), told
    return "".join(told)


def test_a_refusal_in_the_site_s_own_words_is_told_at_once_and_is_final(system: System) -> None:
    key = system.create(resources={"partition": "short"})
    words = "Jobs of this kind must go to partition main"
    wait_for(lambda: words in str(system.service(key)["message"]), "the words are told", 60, lambda: system.story(key))
    code, said = command_line(system, "services", "wait", key, "--timeout", "120")
    assert (code, words in said) == (1, True), said
    assert system.status(key) == "failed"
    assert words in words_of(system, key)
    assert [a["outcome"] for a in system.attempts(key)] == ["SubmitRejected"]
    assert not system.jobs()
    system.sql("UPDATE services SET config = json_remove(config, '$.resources') WHERE id = ?", key)
    system.wait_status(key, "running")
    system.delete(key)


def test_doctor_tells_the_words_beforehand(system: System, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AI_FACTORY_SLURM_PARTITION", "short")
    code, said = command_line(system, "doctor", "--no-job")
    assert (code, said.count("✗")) == (1, 1), said
    assert re.search(r"✗ may submit .*Jobs of this kind must go to partition (main)", said)
    monkeypatch.setenv("AI_FACTORY_SLURM_PARTITION", "main")
    code, said = command_line(system, "doctor", "--no-job")
    assert (code, "✗" in said) == (0, False), said


def test_what_it_takes_is_run(system: System) -> None:
    key = system.create()
    system.wait_status(key, "running")
    system.delete(key)
