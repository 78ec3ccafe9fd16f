from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from cli_tools import Run

from api.cli.main import main

RECIPE = """\
name: hello
category: simple
description: Says hello
version: 1.0.0
program: [echo]
command: [hello, "{word}"]
parameters:
  word: {type: string, default: world, description: To whom}
"""


@pytest.fixture
def recipes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "recipes"
    (folder / "simple").mkdir(parents=True)
    (folder / "simple" / "hello.yaml").write_text(RECIPE)
    monkeypatch.setenv("AI_FACTORY_RECIPES", str(folder))
    return folder / "simple"


def test_recipes_are_listed_and_shown(run: Run, recipes: Path) -> None:
    assert run("recipes", "list").out.splitlines()[1].split()[0] == "simple/hello"
    assert run("recipes", "list", "-o", "name").out == "simple/hello\n"
    assert json.loads(run("recipes", "list", "-o", "json").out)[0]["version"] == "1.0.0"
    assert str(recipes) in run("recipes", "list", "-o", "wide").out
    shown = run("recipes", "show", "hello").out
    assert "Says hello" in shown
    assert "To whom" in shown
    assert json.loads(run("recipes", "show", "hello", "-o", "json").out)["parameters"]["word"]["default"] == "world"
    missing = run("recipes", "show", "nonsense")
    assert (missing.code, "recipes list" in missing.err) == (5, True)


def test_validate_names_file_line_and_key(run: Run, recipes: Path) -> None:
    assert run("recipes", "validate").code == 0
    bad = recipes / "bad.yaml"
    bad.write_text(RECIPE.replace("name: hello", "name: hello\nnonsense: 1"))
    ran = run("recipes", "validate")
    assert (ran.code, ran.out) == (1, f"{bad}:2: nonsense: there is no such key.\n")
    assert run("recipes", "validate", str(bad)).out == ran.out
    assert run("recipes", "validate", str(recipes / "hello.yaml")).code == 0
    assert run("recipes", "validate", str(recipes / "none.yaml")).code == 1
    listed = run("recipes", "list")
    assert (listed.code, "recipes validate" in listed.err) == (0, True)
    shown = run("recipes", "show", "bad")
    assert (shown.code, "nonsense" in shown.err) == (1, True)


def test_render_asks_the_controller(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    stand_in = tmp_path / "controller.sh"
    stand_in.write_text('#!/bin/sh\nprintf "%s\\n" "$@" "$AI_FACTORY_CONFIG"; exit 5\n')
    stand_in.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(stand_in))
    settings = tmp_path / "config.toml"
    settings.touch()
    monkeypatch.chdir(tmp_path)
    assert main(["recipes", "render", "simple/hello", "--set", "word=you", "--config", "config.toml"]) == 5
    said = capfd.readouterr().out.splitlines()
    assert said == ["-m", "controller", "render", "simple/hello", "--config-json", '{"word": "you"}', str(settings)]


@pytest.mark.parametrize(
    ("argv", "asked"),
    [
        (["explain", "chat", "-o", "json"], ["explain", "--output", "json", "--", "chat"]),
        (["explain", "chat"], ["explain", "--output", "table", "--", "chat"]),
        (["controller", "replay", "f"], ["replay", "--", "f"]),
        (["controller", "replay", "f", "--line", "3"], ["replay", "--line", "3", "--", "f"]),
        (["controller", "replay", "--service", "chat", "f"], ["replay", "--service=chat", "--", "f"]),
    ],
)
def test_why_is_asked_of_the_controller(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    argv: list[str],
    asked: list[str],
) -> None:
    stand_in = tmp_path / "controller.sh"
    stand_in.write_text('#!/bin/sh\nprintf "%s\\n" "$@"; exit 5\n')
    stand_in.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(stand_in))
    assert main(argv) == 5
    assert capfd.readouterr().out.splitlines() == ["-m", "controller", *asked]


def test_config_says_where_each_value_came_from(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "config.toml"
    file.write_text(
        'database_url = "postgresql://me:hunter2@db/x"\n[slurm]\npartition = "gpu"\n'
        '[recipe."simple/hello".environment]\nHF_TOKEN = "hunter2"\nA = "b"\n'
    )
    monkeypatch.setenv("AI_FACTORY_API_PORT", "9000")
    ran = run("--config", str(file), "config", "-o", "json")
    values = json.loads(ran.out)
    assert "hunter2" not in ran.out
    assert values["database_url"] == {"value": "postgresql://me:***@db/x", "source": "file"}
    assert values["recipe"]["value"]["simple/hello"]["environment"] == {"HF_TOKEN": "***", "A": "b"}
    assert values["slurm.partition"] == {"value": "gpu", "source": "file"}
    assert values["api.port"] == {"value": 9000, "source": "AI_FACTORY_API_PORT"}
    assert values["api.host"]["source"] == "default"
    assert "hunter2" not in run("--config", str(file), "config").out


def test_migrate_says_from_where_to_where(run: Run) -> None:
    missing = run("migrate", "--check")
    assert (missing.code, "ai-factory migrate" in missing.err) == (3, True)
    assert run("migrate").out.startswith("Schema: empty → 0")
    assert run("migrate").out.endswith("as it was.\n")
    assert run("migrate", "--check").code == 0
    assert run("migrate", "--revision", "base").out.endswith("→ empty.\n")
    assert run("migrate", "--revision", "nonsense").code == 2


def test_migrate_where_nothing_can_be_written(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("AI_FACTORY_STATE_DIR", str(tmp_path / "file" / "state"))
    ran = run("migrate")
    assert (ran.code, ran.err.count("\n")) == (3, 1)
    monkeypatch.setenv("AI_FACTORY_DATABASE_URL", "mysql://x")
    assert run("migrate").code == 3
