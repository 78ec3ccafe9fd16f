"""The environment of Apptainer itself."""

from __future__ import annotations

from pathlib import Path

from controller.wrapper.sandbox.environment import for_container


def test_what_apptainer_unpacks_lies_where_it_goes_with_the_job(tmp_path: Path) -> None:
    found = for_container({}, {"TMPDIR": "/tmp"}, tmp_path)
    assert found["APPTAINER_TMPDIR"] == found["SINGULARITY_TMPDIR"] == str(tmp_path)


def test_a_site_may_have_it_elsewhere(tmp_path: Path) -> None:
    assert for_container({}, {"APPTAINER_TMPDIR": "/local"}, tmp_path)["APPTAINER_TMPDIR"] == "/local"
