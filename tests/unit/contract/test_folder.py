"""Where a job's folder lies, and what is in it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from api.contract.job import folder
from api.contract.job.folder import is_slot, job_folder, jobs_folder, name_of, read_object, rotated, slot_folder
from api.contract.job.token import Token
from api.contract.job.words import ExitReason
from controller.bundle import launch_script

TOKEN = Token("i", "s", 3, 17)


def test_the_layout_is_the_one_that_older_jobs_know() -> None:
    job = job_folder(jobs_folder(Path("/run"), "i"), "s", str(TOKEN))
    assert job == Path("/run/i/s/af-i-s-3-17")
    assert slot_folder(job, TOKEN) == Path("/run/i/s/af-i-s-3.slot")
    assert (is_slot(slot_folder(job, TOKEN)), is_slot(job)) == (True, False)
    assert rotated(job / "stdout.log") == job / "stdout.log.1"
    assert name_of(b"", "launch", ".sh") == "launch-e3b0c44298fc1c149afbf4c8996fb924.sh"


def test_the_batch_script_calls_the_files_by_the_same_names() -> None:
    named = set(re.findall(r"\$af_job/([a-z.]+)", launch_script()))
    drafts = {f".{folder.CLAIM}.", f".{folder.EXIT}.tmp"}
    assert named == {folder.CLAIM, folder.PARAMETERS, folder.EXIT, folder.PROLOGUE, *drafts}


def test_the_batch_script_says_the_same_words() -> None:
    said = re.findall(r'af_give_up "\$1" (\w+) "', launch_script())
    assert said == [str(ExitReason.PYTHON_MISSING), str(ExitReason.WRAPPER_CHANGED)]


def test_the_batch_script_compares_as_many_digits_as_there_are() -> None:
    assert f"${{found:0:{folder.DIGITS}}}" in launch_script()


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"\xff", b"[" * 100_000, b'{"a": 1, "b": 22}'])
def test_what_is_garbled_or_too_long_reads_as_empty(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(content)
    assert read_object(tmp_path / "x", 10) == {}


def test_an_object_is_read(tmp_path: Path) -> None:
    (tmp_path / "x").write_text('{"a": 1}')
    assert read_object(tmp_path / "x") == {"a": 1}
    assert read_object(tmp_path / "absent") == {}
