"""A site whose prolog finds a node unfit."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.system import System, wait_for
from tests.sites.conftest import command_line, site

PROLOG = """#!/bin/bash
[ -e "{folder}/unfit" ] || exit 0
exit 1
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("prolog")
    file = folder / "prolog"
    file.write_text(PROLOG.format(folder=folder))
    file.chmod(0o755)
    return folder


@pytest.fixture(scope="module")
def system(apptainer: str, folder: Path) -> Iterator[System]:
    with site(apptainer, EXTRA=f"Prolog={folder}/prolog") as system:
        yield system


def test_a_prolog_that_fails_is_named_and_the_job_goes_elsewhere(system: System, folder: Path) -> None:
    (folder / "unfit").touch()
    key = system.create()

    def told() -> bool:
        return any("prolog failed" in attempt["message"] for attempt in system.attempts(key))

    wait_for(told, "the prolog is named", story=lambda: system.story(key))
    (folder / "unfit").unlink()
    wait_for(lambda: system.cluster.resume_nodes() or True, "nodes are given back")
    system.wait_status(key, "running")
    system.delete(key)


def test_doctor_tells_what_slurm_says_of_the_node(system: System, folder: Path) -> None:
    (folder / "unfit").touch()
    code, said = command_line(system, "doctor", "--timeout", "60")
    (folder / "unfit").unlink()
    assert (code, said.count("✗")) == (1, 1), said
    assert "Prolog error" in said, said
    wait_for(lambda: system.cluster.resume_nodes() or True, "nodes are given back")
    code, said = command_line(system, "doctor")
    assert (code, "✗" in said) == (0, False), said
