"""install-apptainer and make-model, as far as that needs no download."""

import os

import pytest


def program(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def test_the_systems_own_apptainer_is_used(tmp_path, script):
    own = program(tmp_path / "bin" / "apptainer", "exit 0")
    for _ in range(2):
        done = script("install-apptainer", tmp_path / "tools" / "apptainer", PATH=f"{own.parent}:{os.environ['PATH']}")
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        assert (tmp_path / "tools" / "apptainer" / "bin" / "apptainer").resolve() == own


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["elephant", "out"], "unknown kind of model: elephant"),
        (["tiny", "out", "nowhere"], "no virtual environment in"),
    ],
)
def test_make_model_refuses(tmp_path, script, arguments, told):
    kind, *paths = arguments
    done = script("make-model", kind, *(tmp_path / path for path in paths))
    assert done.returncode == 1
    assert told in done.stderr
