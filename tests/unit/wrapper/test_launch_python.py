"""Which Python the batch script takes, and what it says where none will do."""

from __future__ import annotations

import json
import stat
import sys
from pathlib import Path

import pytest

from controller.bundle import launch_script
from controller.core.job_files import Held
from controller.rundir import read_job_files

from .jobs import Job

PROGRAMS = ("uname", "date", "sync", "ln", "stat", "rm", "mv", "sh", "true")


class Node:
    """A PATH on which there is nothing but what is put there."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.bin = job.temporary.with_name("bin")
        self.bin.mkdir()
        for name in PROGRAMS:
            (self.bin / name).symlink_to(f"/bin/{name}" if Path(f"/bin/{name}").exists() else f"/usr/bin/{name}")

    def python(self, name: str, version: str) -> Path:
        """Put a Python there that is too old, or, by the version of this one, one that will do."""
        path = self.bin / name
        real = version == "real"
        path.write_text(
            f'#!/bin/sh\nexec {sys.executable} "$@"\n' if real else f"#!/bin/sh\necho '{version}'; exit 1\n"
        )
        path.chmod(0o755)
        return path

    def launch(self, configured: str, **environment: str) -> int:
        self.job.write(command=["true"])
        script = self.job.temporary.with_name("slurm_script")
        script.write_text(launch_script())
        argv = ["/bin/bash", str(script), str(self.job.folder), str(self.job.wrapper), configured]
        known = {"PATH": str(self.bin), "BASH_FUNC_module%%": "() { :; }"}  # so no profile puts more on PATH
        self.job.start(argv=argv, **{**known, **environment})
        return self.job.wait()


@pytest.fixture
def node(job: Job) -> Node:
    return Node(job)


def test_the_configured_one_is_taken_without_a_word(node: Node) -> None:
    node.python("site-python", "real")
    node.python("python3.14", "3.14.0 is not asked")
    assert node.launch("site-python") == 0
    assert (node.job.exit["reason"], node.job.stderr) == ("EngineExited", "")


def test_one_that_will_not_do_gives_way_to_the_newest_that_does(node: Node) -> None:
    old, broken = node.python("python3", "3.6.8"), node.python("python3.13", "pyenv: python3.13: command not found")
    node.python("python3.12", "real")
    assert node.launch("python3") == 0
    assert node.job.exit["reason"] == "EngineExited"
    found = f"slurm.python is python3. Found: {old} (3.6.8), {broken} (pyenv: python3.13: command not found)."
    assert found in node.job.stderr
    assert f"Taking {node.bin}/python3.12." in node.job.stderr


def test_where_none_will_do_the_job_claims_and_says_what_was_found(node: Node) -> None:
    old = node.python("python3", "3.8.18")
    assert node.launch("/opt/none/python3.9") == 1
    files = read_job_files(node.job.folder)
    assert files.claim == Held(job_id=77)
    assert files.exit is not None
    assert (files.exit.code, files.exit.reason) == (1, "PythonMissing")
    assert f"slurm.python is /opt/none/python3.9. Found: {old} (3.8.18). " in files.exit.message
    assert "Not found: /opt/none/python3.9, python3.14, python3.13," in files.exit.message
    assert files.exit.message.endswith("Set slurm.python to one that every node has, or load one by slurm.prologue.")
    left = sorted(path.name for path in node.job.folder.iterdir())
    assert left == ["claim", "exit.json", "stderr.log", "stdout.log"], "nor is the secret in params.json"
    assert {stat.S_IMODE((node.job.folder / name).stat().st_mode) for name in ("claim", "exit.json")} == {0o600}


@pytest.mark.parametrize("content", [b"print('planted')", b"", None])
def test_a_wrapper_that_was_changed_is_not_run(node: Node, content: bytes | None) -> None:
    node.python("python3", "real")
    node.job.wrapper = node.job.temporary.with_name(node.job.wrapper.name)
    if content is not None:
        node.job.wrapper.write_bytes(content)
    assert node.launch("python3") == 1
    assert node.job.exit["reason"] == "WrapperChanged"
    assert node.job.exit["message"].startswith(f"{node.job.wrapper} is not what was submitted, or can't be read, on ")
    assert "planted" not in node.job.stdout
    left = sorted(path.name for path in node.job.folder.iterdir())
    assert left == ["claim", "exit.json", "stderr.log", "stdout.log"], "nor is the secret in params.json"


@pytest.mark.parametrize("claim", ['{"revoked": true}', '{"job_id": 78, "restarts": 0}', "garbled"])
def test_without_the_claim_it_leaves_no_trace(node: Node, claim: str) -> None:
    """The attempt is another job's, or over: its record is not for this one to write."""
    (node.job.folder / "claim").write_text(claim)
    assert node.launch("no-python") == 0
    assert (node.job.folder / "claim").read_text() == claim
    left = sorted(path.name for path in node.job.folder.iterdir())
    assert left == ["claim", "params.json", "stderr.log", "stdout.log"]


def test_a_requeued_job_looks_for_nothing(node: Node) -> None:
    assert node.launch("no-python", SLURM_RESTART_COUNT="1") == 0
    assert not (node.job.folder / "claim").exists()


def test_a_folder_that_takes_no_claim_gets_no_record(node: Node) -> None:
    (node.bin / "ln").unlink()
    (node.bin / "ln").write_text("#!/bin/sh\nexit 1\n")
    (node.bin / "ln").chmod(0o755)
    assert node.launch("no-python") == 1
    assert not {"claim", "exit.json"} & {path.name for path in node.job.folder.iterdir()}


def test_an_answer_of_link_that_was_lost_is_known_by_the_link(node: Node) -> None:
    (node.bin / "ln").unlink()
    (node.bin / "ln").write_text('#!/bin/sh\n/bin/ln "$@"; exit 1\n')
    (node.bin / "ln").chmod(0o755)
    assert node.launch("no-python") == 1
    assert node.job.exit["reason"] == "PythonMissing"


def test_the_prologue_may_bring_one_and_may_fail(node: Node) -> None:
    modules = node.bin.with_name("modules")
    modules.mkdir()
    node.python("python3.11", "real").rename(modules / "python3.11")
    (node.job.folder / "prologue.sh").write_text(f"set -eu\nPATH={modules}:$PATH\n")
    assert node.launch("python3") == 0, node.job.stderr
    assert node.job.exit["reason"] == "EngineExited"


def test_a_failed_prologue_is_told_with_it(node: Node) -> None:
    (node.job.folder / "prologue.sh").write_text("exit 3\n")
    assert node.launch("python3") == 1
    assert node.job.exit["reason"] == "PythonMissing"
    assert "The prologue ended with 3." in node.job.exit["message"]


def test_odd_paths_make_no_odd_record(node: Node) -> None:
    odd = node.bin.with_name('a"b\\c\u017e\n$(x)')
    odd.mkdir()
    python = node.python("python3", '3.8 "quoted" \\ \u017e')
    python.rename(odd / "python3")
    assert node.launch(str(odd / "python3")) == 1
    record = json.loads((node.job.folder / "exit.json").read_text())
    assert 'a"b\\c' in record["message"]
    assert '3.8 "quoted" \\' in record["message"]
