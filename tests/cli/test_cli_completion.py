"""What shells complete: the grammar's own words, and names that the API knows."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from cli_tools import LiveApi, Run

from api.cli.arguments import build
from api.cli.completion import candidates

NAMES = {"ID": ["chat", "search"], "RECIPE": ["inference/vllm"]}


def found(*words: str) -> list[str]:
    return [word for word, _ in candidates(build(), words, lambda metavar: NAMES[metavar])]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("serv",), ["services"]),
        (("comp",), ["completion"]),
        (("services", "st"), ["stop", "start"]),
        (("services", "get", ""), ["chat", "search"]),
        (("services", "get", "s"), ["search"]),
        (("services", "get", "chat", ""), []),
        (("services", "delete", "chat", ""), ["chat", "search"]),
        (("services", "scale", "chat", ""), []),
        (("services", "create", "inf"), ["inference/vllm"]),
        (("services", "create", "--config-file", ""), [":files"]),
        (("services", "create", "--config-file", "x", "inf"), ["inference/vllm"]),
        (("services", "wait", "--for", ""), ["ready", "deleted", "completed"]),
        (("services", "wait", "--for", "d"), ["deleted"]),
        (("services", "wait", "--for=d"), ["--for=deleted"]),
        (("services", "wait", "--for", "=", "d"), ["deleted"]),
        (("services", "wait", "--for", "="), ["ready", "deleted", "completed"]),
        (("services", "wait", "--for", "ready", "c"), ["chat"]),
        (("services", "list", "--no"), ["--no-color"]),
        (("-o", ""), ["table"]),
        (("services", "list", "-o", "n"), ["name"]),
        (("--server", "http://x", "doc"), ["doctor"]),
        (("apply", "-f", ""), [":files"]),
        (("apply", "-f", "a.yaml", ""), [":files"]),
        (("apply", "-f", "a.yaml", "--pr"), ["--prune"]),
        (("logs", "-f", "c"), ["chat"]),
        (("logs", "--tail", ""), []),
        (("prompt", "chat", "--", ""), []),
        (("export", "chat", "s"), ["search"]),
        (("completion", ""), ["bash", "zsh", "fish"]),
        (("controller", "re"), ["replay"]),
        (("nonsense", "x", ""), []),
    ],
)
def test_candidates(words: Sequence[str], expected: list[str]) -> None:
    assert found(*words) == expected


def test_every_command_and_flag_is_offered() -> None:
    assert {"up", "services", "apply", "doctor", "completion"} <= set(found(""))
    assert "complete" not in found("")
    assert {"--wait", "--timeout", "--set", "--name", "--output"} <= set(found("services", "create", "--"))


def test_names_come_from_the_api(ask: Run, run: Run, live: LiveApi, monkeypatch: pytest.MonkeyPatch) -> None:
    ask("services", "create", "inference/vllm_dummy", "--name", "chat")
    ask("services", "create", "inference/vllm_dummy", "--name", "gone")
    ask("services", "delete", "gone")
    monkeypatch.setenv("AI_FACTORY_API_PORT", str(live.port))
    monkeypatch.setattr("api.cli.completion.NAMES_SECONDS", 20.0)
    assert run("complete", "--", "services", "get", "").out == "chat\n"
    assert "inference/vllm_dummy\n" in run("complete", "--", "services", "create", "inf").out
    monkeypatch.setenv("AI_FACTORY_API_PORT", "9")
    silent = run("complete", "--", "services", "get", "")
    assert (silent.code, silent.out, silent.err) == (0, "", "")
    assert run("complete", "--", "").out.startswith("up\tbring the database up to date")


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Our program under its name, on PATH."""
    file = tmp_path / "bin" / "ai-factory"
    file.parent.mkdir()
    file.write_text(f'#!/bin/bash\ncd {Path(__file__).parents[2]} && exec {sys.executable} -m api.cli "$@"\n')
    file.chmod(0o755)
    monkeypatch.setenv("PATH", str(file.parent), prepend=":")
    return file


def test_bash_completes(run: Run, program: Path, tmp_path: Path) -> None:
    (tmp_path / "my services.yaml").touch()
    script = f"""{run("completion", "bash").out}
ask() {{ COMP_WORDS=("$@"); COMP_CWORD=$(( $# - 1 )); _ai_factory; printf '%s\\n' "${{COMPREPLY[@]}}"; }}
cd {tmp_path}
ask ai-factory services wa
ask ai-factory services wait --for ""
ask ai-factory apply -f my
"""
    ended = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    assert ended.stdout.splitlines() == ["wait", "ready", "deleted", "completed", "my services.yaml"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_scripts_are_well_formed(run: Run, shell: str) -> None:
    text = run("completion", shell).out
    assert "ai-factory complete --" in text
    if shutil.which(shell) is None:
        assert shell != "bash"  # the others are not on every machine; what they ask is tested above
        return
    ended = subprocess.run([shell, "-n"], input=text, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_an_unknown_shell(run: Run) -> None:
    assert run("completion", "tcsh").code == 2
