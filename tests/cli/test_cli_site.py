from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cli_tools import Run

from controller.commands.replay import Replayed

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


def test_render_prints_the_job_under_the_settings_in_effect(
    run: Run, recipes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config.toml").write_text('[slurm]\nprologue = "module load apptainer"\n')
    monkeypatch.chdir(tmp_path)
    ran = run("recipes", "render", "simple/hello", "--set", "word=you", "--config", "config.toml")
    assert ran.code == 0
    assert "# --- sbatch\nsbatch " in ran.out
    assert "module load apptainer" in ran.out
    assert json.loads(ran.out.partition("# --- params.json (mode 0600)\n")[2])["command"][-1] == "you"
    refused = run("recipes", "render", "simple/hello", "--set", "resources.gpu=x")
    assert (refused.code, refused.err.count("\n"), "resources.gpu" in refused.err) == (1, 1, True)
    assert run("recipes", "render", "simple/none").code == 1


@pytest.mark.parametrize(
    ("argv", "asked"),
    [
        (["f"], {"line": None, "service": None}),
        (["f", "--line", "3"], {"line": 3, "service": None}),
        (["--service", "chat", "f"], {"line": None, "service": "chat"}),
    ],
)
def test_what_is_replayed(run: Run, monkeypatch: pytest.MonkeyPatch, argv: list[str], asked: dict[str, Any]) -> None:
    results = [Replayed(line=n, decision=None, differences=("It is another.",)) for n in (1, 2)]
    given: list[Any] = []

    def replay(file: Path, **chosen: Any) -> Iterator[Replayed]:
        given.append((file, chosen))
        yield from results

    monkeypatch.setattr("api.cli.programs.replay.replayed", replay)
    ran = run("controller", "replay", *argv)
    assert given == [(Path("f"), asked)]
    assert (ran.code, ran.out) == (1, "line 1: It is another.\nline 2: It is another.\n")
    assert ran.err == "2 decided again, 2 otherwise.\n"
    assert run("controller", "replay", "--line", "1", "--service", "chat", "f").code == 2


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
