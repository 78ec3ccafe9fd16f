"""Mistakes are told when they are made, and with what was probably meant."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cli_tools import FakeApi, LiveApi, Run, service

from api.contract.exits import Exit

DUMMY = "inference/vllm_dummy"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("service",), "There is no command service. Did you mean services?"),
        (("services", "lst"), "There is no command lst. Did you mean list?"),
        (("services", "discribe", "x"), "Did you mean describe?"),
        (("zzzzzz",), "There is no command zzzzzz. See: ai-factory --help"),
    ],
)
def test_a_command_that_there_is_not(run: Run, words: tuple[str, ...], told: str) -> None:
    ran = run(*words)
    assert ran.code == Exit.USAGE
    assert told in ran.err
    assert len(ran.err) < 120, "not all commands are listed"


def test_a_recipe_that_there_is_not(ask: Run, run: Run) -> None:
    for ran in (ask("services", "create", "inference/vlm"), run("recipes", "show", "inference/vlm")):
        assert ran.code == Exit.NOT_FOUND
        assert "Did you mean inference/vllm" in ran.err
    assert "Did you mean inference/vllm" in run("recipes", "render", "inference/vlm").err


def test_a_key_that_is_a_slip(ask: Run, run: Run, live: LiveApi, tmp_path: Path) -> None:
    created = ask("services", "create", DUMMY, "--name", "slip", "--set", "startup_dealy=3")
    file = tmp_path / "slip.yaml"
    file.write_text(f"name: slip\nrecipe_name: {DUMMY}\nconfig: {{startup_dealy: 3}}\n")
    applied, tried = (ask("apply", "-f", str(file), flag) for flag in ("--yes", "--dry-run"))
    rendered = run("recipes", "render", DUMMY, "--set", "startup_dealy=3")
    for ran in (created, applied, tried, rendered):
        assert ran.code == Exit.FAILED or ran is rendered
        assert "startup_dealy" in ran.err
        assert "Did you mean startup_delay?" in ran.err
    assert live.sql("SELECT count(*) FROM services WHERE name = 'slip'") == [(0,)]


def test_what_has_no_effect_is_said_to_who_writes_it(ask: Run, tmp_path: Path) -> None:
    told = "Warning: team: this recipe has no such key: it is kept, and has no effect."
    assert told in ask("services", "create", DUMMY, "--name", "one", "--set", "team=nlp").err
    file = tmp_path / "two.yaml"
    file.write_text(f"name: two\nrecipe_name: {DUMMY}\nconfig: {{team: nlp}}\n")
    named = told.replace("Warning: ", "Warning: two: ")
    assert named in ask("apply", "-f", str(file), "--dry-run").err
    assert named in ask("apply", "-f", str(file), "--yes").err
    file.write_text(f"name: two\nrecipe_name: {DUMMY}\nconfig: {{team: ops}}\n")
    assert named in ask("apply", "-f", str(file), "--yes").err


def test_describe_tells_warnings_in_full(run: Run, api: FakeApi) -> None:
    said = "team: this recipe has no such key: it is kept, and has no effect. " * 3
    condition = {"type": "Accepted", "status": "True", "reason": "ValidWithWarnings", "message": said, "since": 0}
    api.answer("GET", "/api/v1/services/chat", (200, service(conditions=[condition])))
    ran = run("services", "describe", "chat", "--server", api.url)
    assert f"Warnings:\n  {said.strip()}\n" in ran.out


def test_a_trial_creates_nothing(ask: Run, live: LiveApi) -> None:
    ran = ask("services", "create", DUMMY, "--name", "trial", "--dry-run", "--set", "team=nlp", "-o", "json")
    assert (ran.code, json.loads(ran.out)["name"]) == (0, "trial")
    assert "Warning: team" in ran.err
    assert "Nothing was created" in ran.err
    assert ask("services", "create", DUMMY, "--dry-run", "--set", "startup_delay=x").code == Exit.FAILED
    assert live.sql("SELECT count(*) FROM services WHERE name = 'trial'") == [(0,)]


def test_an_api_that_can_not_try_is_not_asked_to(run: Run, api: FakeApi) -> None:
    api.answer("GET", "/openapi.extended.json", (200, {"paths": {"/api/v1/services": {"post": {}}}}))
    ran = run("services", "create", DUMMY, "--dry-run", "--server", api.url)
    assert (ran.code, "older than --dry-run" in ran.err) == (Exit.FAILED, True)
    assert [method for method, _, _ in api.asked] == ["GET"]


def test_all_files_of_a_folder_are_applied(ask: Run, live: LiveApi, tmp_path: Path) -> None:
    for name, file in (("b1", "b.yaml"), ("a1", "a.yml"), ("c1", "c.json")):
        (tmp_path / file).write_text(json.dumps({"name": name, "recipe_name": DUMMY}))
    (tmp_path / "notes.txt").write_text("no service")
    ran = ask("apply", "-f", str(tmp_path), "--yes")
    assert [line for line in ran.out.splitlines() if line.endswith("created")] == [
        "a1 created",
        "b1 created",
        "c1 created",
    ]
    (tmp_path / "empty").mkdir()
    assert "There is no file *.yaml" in ask("apply", "-f", str(tmp_path / "empty"), "--yes").err


def test_without_a_terminal_no_editor_is_started(ask: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EDITOR", raising=False)
    monkeypatch.delenv("VISUAL", raising=False)
    ask("services", "create", DUMMY, "--name", "edited")
    ran = ask("services", "edit", "edited")
    assert (ran.code, "There is no terminal to edit in" in ran.err) == (Exit.USAGE, True)


def test_the_keys_of_a_recipe_are_offered(run: Run) -> None:
    offered = run("complete", "--", "services", "create", DUMMY, "--set", "st").out.split()
    assert offered == ["startup_delay="]
    offered = run("complete", "--", "services", "create", "vllm", "--set", "resources.g").out.split()
    assert offered == ["resources.gpu=", "resources.gres="]
    assert run("complete", "--", "services", "create", "--set", "x").out == ""
