"""What is seen and changed of a service, through the API itself and a real database."""

from __future__ import annotations

import ast
import json
import re
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli_tools import FakeApi, Following, LiveApi, Run, service

from api.cli.rest.client import for_people
from api.contract.exits import Exit
from tests.pages import ROOT

RECIPE = "inference/vllm_dummy"
REQUEST = re.compile(r"\b(GET|POST|PUT|PATCH|DELETE) [/…]")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.cli.services.wait.POLL_FIRST", 0.01)
    monkeypatch.setattr("api.cli.services.wait.POLL_MOST", 0.02)


@pytest.fixture
def chat(ask: Run) -> str:
    """A service of that name; its id."""
    return str(json.loads(ask("services", "create", RECIPE, "--name", "chat", "-o", "json").out)["id"])


def declared(ask: Run, name: str = "chat") -> dict[str, object]:
    (found,) = json.loads(ask("export", name, "-o", "json").out)
    return dict(found)


def test_scale(ask: Run, live: LiveApi, chat: str) -> None:
    ran = ask("services", "scale", "chat", "3", "-o", "json")
    assert (ran.code, json.loads(ran.out)["replicas"]) == (0, 3)
    assert live.sql("SELECT replicas FROM services") == [(3,)]
    assert ask("services", "scale", "chat", "1001").code == Exit.USAGE
    assert ask("services", "scale", "nobody", "1").code == Exit.NOT_FOUND
    late = ask("services", "scale", "chat", "2", "--wait", "--timeout", "0.05")
    assert (late.code, "ai-factory services describe" in late.err) == (Exit.TIMED_OUT, True)
    live.observe(chat, "AsWanted", ready=2)
    assert ask("services", "scale", "chat", "2", "--wait", "--timeout", "30").code == 0


def test_a_restart_is_a_new_launch_of_the_same(ask: Run, live: LiveApi, chat: str) -> None:
    assert ask("services", "restart", "chat").code == 0
    first = declared(ask)["config"]
    assert ask("services", "restart", "chat").code == 0
    second = declared(ask)["config"]
    assert isinstance(first, dict)
    assert isinstance(second, dict)
    assert first["restarted_at"] < second["restarted_at"]
    assert live.sql("SELECT generation FROM services") == [(3,)]
    assert ask("services", "stop", "chat").code == 0
    refused = ask("services", "restart", "chat")
    assert (refused.code, "services start chat" in refused.err) == (Exit.FAILED, True)


def test_stop_and_start(ask: Run, live: LiveApi, chat: str) -> None:
    assert json.loads(ask("services", "stop", "chat", "-o", "json").out)["status"] == "cancelled"
    assert declared(ask)["desired_state"] == "stopped"
    assert ask("services", "start", "chat").code == 0
    assert "desired_state" not in declared(ask)
    live.observe(chat, "AsWanted", ready=1)
    ran = ask("services", "start", "chat", "--wait", "-o", "name")
    assert (ran.code, ran.out, "✓ chat  is running" in ran.err) == (0, "chat\n", True)


def test_wait_until_ready_speaks_of_what_is_wanted_now(ask: Run, live: LiveApi, chat: str) -> None:
    live.observe(chat, "AsWanted", ready=1)
    assert ask("services", "wait", "chat", "--timeout", "30").code == 0
    ask("services", "restart", "chat")
    assert ask("services", "wait", "chat", "--timeout", "0.05").code == Exit.TIMED_OUT
    live.observe(chat, "AsWanted", ready=1)
    assert ask("services", "wait", "chat", "--timeout", "30").code == 0
    ask("services", "scale", "chat", "2")
    live.observe(chat, "Starting", ready=1)
    assert ask("services", "wait", "chat", "--timeout", "0.05").code == Exit.TIMED_OUT
    live.observe(chat, "Failed", message="No such image.")
    failed = ask("services", "wait", "chat")
    assert (failed.code, "failed: No such image. See: ai-factory" in failed.err) == (Exit.FAILED, True)
    ask("services", "scale", "chat", "0")
    live.observe(chat, "AsWanted")
    assert "scaled to 0" in ask("services", "wait", "chat").err
    assert ask("services", "wait", "nobody").code == Exit.NOT_FOUND


def test_wait_for_several_ends_with_the_last(ask: Run, live: LiveApi, chat: str) -> None:
    other = json.loads(ask("services", "create", RECIPE, "--name", "other", "-o", "json").out)["id"]
    live.observe(chat, "AsWanted", ready=1)
    later = threading.Timer(0.2, live.observe, (other, "AsWanted"), {"ready": 1})
    later.start()
    ran = ask("services", "wait", "chat", "other", "-o", "name", "--timeout", "30")
    later.join()
    assert (ran.code, ran.out) == (0, "chat\nother\n")


def test_wait_for_the_end(ask: Run, live: LiveApi, chat: str) -> None:
    live.observe(chat, "Completed")
    assert ask("services", "wait", "chat", "--for", "completed").code == 0
    assert "--for completed" in ask("services", "wait", "chat").err
    assert ask("services", "wait", "chat", "--for", "deleted", "--timeout", "0.05").code == Exit.TIMED_OUT
    live.attempt(chat)
    assert ask("services", "delete", "chat").code == 0
    live.observe(chat, "Stopping")
    late = ask("services", "wait", "chat", "--for", "deleted", "--timeout", "0.05")
    assert (late.code, "ai-factory doctor" in late.err) == (Exit.TIMED_OUT, True)
    assert ask("services", "list", "-o", "name").out == "chat\n"
    assert ask("services", "list", "--status", "stopping", "-o", "name").out == "chat\n"
    live.observe(chat, "Stopped")
    live.sql("UPDATE attempts SET closed_at = 1, gone_at = 1, outcome = 'Stopped'")
    assert ask("services", "list", "-o", "name").out == ""
    assert ask("services", "get", "chat").code == Exit.NOT_FOUND
    assert ask("services", "get", chat).out.splitlines()[1].split()[3] == "deleted"
    assert ask("services", "list", "--all").out.splitlines()[1].split()[:4] == [chat, "chat", RECIPE, "deleted"]
    assert ask("services", "wait", "chat", "--for", "deleted").code == 0
    assert ask("services", "wait", "nobody", "--for", "deleted").code == 0


def test_ctrl_c_while_waiting_says_that_it_goes_on(live: LiveApi, chat: str) -> None:
    live.observe(chat, "Starting", message="Its engine is starting.")
    waiting = Following("services", "wait", "chat", "--server", live.url)
    try:
        waiting.until("Its engine is starting.")
        assert waiting.end() == Exit.INTERRUPTED
    finally:
        waiting.kill()
    assert "chat goes on; nothing was undone. To wait again: ai-factory services wait chat\n" in waiting.text


def test_without_a_terminal_and_an_editor_nothing_is_edited(
    ask: Run, chat: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("VISUAL", "EDITOR"):
        monkeypatch.delenv(name, raising=False)
    ran = ask("services", "edit", "chat")
    assert (ran.code, "There is no terminal" in ran.err, ran.err.count("\n")) == (Exit.USAGE, True, 1)


def test_what_the_api_calls_a_request_is_told_as_the_command(ask: Run, live: LiveApi, chat: str) -> None:
    live.attempt(chat)
    unknown = [
        ask("services", "create", "nope"), ask("logs", "chat", "--attempt", "7"), ask("services", "get", "nope"),
        ask("services", "restart", "nope"),
    ]  # fmt: skip
    for ran in unknown:
        assert not re.search(REQUEST, ran.out + ran.err), ran
    assert "There are: inference/vllm" in unknown[0].err
    assert unknown[1].out == "There is no such attempt. See: ai-factory services history\n"
    assert unknown[2].err == "ai-factory: There is no such service. See: ai-factory services list\n"


def test_no_answer_of_the_api_names_a_request_that_has_no_command() -> None:
    """But for what a streamed prompt can't be asked, which the command line never asks."""
    kept = "POST /v1/chat/completions"
    named = {
        node.value
        for folder in ("api/http", "api/gateway", "api/web", "controller/core")
        for file in (ROOT / folder).rglob("*.py")
        for node in _said(ast.parse(file.read_text()))
        if re.search(REQUEST, node.value)
    }
    assert len(named) > 5
    assert {text for text in named if re.search(REQUEST, for_people(text)) and kept not in text} == set()


def _said(tree: ast.AST) -> Iterator[ast.Constant]:
    """Yield the texts of a program but those that explain it, and the descriptions of REST's own page."""
    explaining = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    explaining |= {
        id(part)
        for node in ast.walk(tree)
        if isinstance(node, ast.keyword) and node.arg == "description"
        for part in ast.walk(node.value)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in explaining:
            yield node


def test_the_stages_of_an_engine_are_told(ask: Run, live: LiveApi, chat: str) -> None:
    live.observe(chat, "Starting", message="The job 7 runs on n1; its engine is starting.")
    assert "its engine is starting" in ask("services", "wait", "chat", "--timeout", "0.05").err
    live.observe(chat, "Starting", message="Loading weights took 3 seconds (job 7 on n1).")
    said = ask("services", "wait", "chat", "--timeout", "0.05").err
    assert "· chat  starting: Loading weights took 3 seconds (job 7 on n1)." in said


def test_events(ask: Run, live: LiveApi, chat: str) -> None:
    assert "chat was created" in ask("services", "events", "chat").out
    live.event(chat, "Submitted", "Replica 0: it is job 7.")
    live.event(chat, "node_failed", "Replica 0: attempt 1 ended.", type="Warning", count=3)
    rows = ask("services", "events", "chat", "--tail", "2").out.splitlines()
    assert [row.split()[2:5] for row in rows[1:]] == [["Normal", "Submitted", "1"], ["Warning", "node_failed", "3"]]
    assert len(json.loads(ask("services", "events", "chat", "-o", "json").out)) == 3
    assert ask("services", "events", "chat", "--tail", "0").code == Exit.USAGE
    assert ask("services", "events", "nobody").code == Exit.NOT_FOUND


def test_history(ask: Run, live: LiveApi, chat: str) -> None:
    assert "no job was submitted" in ask("services", "history", "chat").err
    began = time.time() - 500
    ended = {"closed_at": began + 310, "gone_at": began + 311, "outcome": "node_failed", "message": "The node died."}
    live.attempt(chat, intent_at=began, job_id=17, node="n1", started_at=began + 10, ready_at=began + 30, **ended)
    live.attempt(chat, incarnation=2, intent_at=began + 320, job_id=18, started_at=began + 400)
    out = ask("services", "history", "chat").out
    assert out.splitlines()[0].split() == [
        "REPLICA", "ATTEMPT", "STATE", "JOB", "NODE", "BEGAN", "LASTED", "OUTCOME", "MESSAGE",
    ]  # fmt: skip
    assert out.splitlines()[1].split()[:5] == ["0", "1", "ended", "17", "n1"]
    assert out.splitlines()[1].split()[7:9] == ["5m", "node_failed"]
    assert out.splitlines()[2].split()[2:4] == ["starting", "18"]
    wide = ask("services", "history", "chat", "-o", "wide").out
    assert f"af-{live.sql('SELECT id FROM installation')[0][0]}-{chat}-0-1" in wide
    assert [one["job_id"] for one in json.loads(ask("services", "history", "chat", "-o", "json").out)] == [17, 18]


# Editing. The editor is a script.


@pytest.fixture
def editor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A script that edits; each time it runs it writes down what it was shown."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.delenv("VISUAL", raising=False)
    script = tmp_path / "an editor"
    monkeypatch.setenv("EDITOR", f"'{script}'")
    return script


def edits(script: Path, *turns: str) -> Path:
    """Have the script do one thing after another, the last one again and again."""
    shown = script.parent / "shown"
    shown.mkdir()
    cases = "\n".join(f"{number}) {turn};;" for number, turn in enumerate(turns[:-1]))
    script.write_text(
        f'#!/bin/bash\nn=$(ls "{shown}" | wc -l); cp "$1" "{shown}/$n"; stat -c %a "$1" >"{script.parent}/mode"\n'
        f"case $n in\n{cases}\n*) {turns[-1]};;\nesac\n"
    )
    script.chmod(0o755)
    return shown


def test_an_edit_is_sent(ask: Run, live: LiveApi, chat: str, editor: Path) -> None:
    shown = edits(editor, 'printf "replicas: 2\\nconfig:\\n  startup_delay: 1\\n" >>"$1"')
    ran = ask("services", "edit", "chat", "-o", "json")
    assert ran.code == 0, ran.err
    assert declared(ask) == {
        "name": "chat", "recipe_name": RECIPE, "replicas": 2, "config": {"startup_delay": 1},
    }  # fmt: skip
    assert (shown / "0").read_text().endswith("\n\nname: chat\nrecipe_name: inference/vllm_dummy\n")
    assert (editor.parent / "mode").read_text() == "600\n"
    assert not list(editor.parent.glob("chat-*.yaml"))


@pytest.mark.parametrize("turn", ["true", 'echo "# a comment" >>"$1"', ': >"$1"'])
def test_an_edit_without_a_change(ask: Run, live: LiveApi, chat: str, editor: Path, turn: str) -> None:
    edits(editor, turn)
    ran = ask("services", "edit", "chat")
    assert (ran.code, ran.out, "nothing was changed" in ran.err) == (0, "", True)
    assert live.sql("SELECT version FROM services") == [(1,)]
    assert not list(editor.parent.glob("chat-*.yaml"))


@pytest.mark.parametrize(
    ("turn", "why"),
    [
        ('printf "config:\\n  command: sh\\n" >>"$1"', "Only a recipe may set this"),
        ('printf "nonsense: 1\\n" >>"$1"', "nonsense: there is no such key"),
        ('printf "a: [\\n" >>"$1"', "neither YAML nor JSON"),
        ('sed -i s/chat/other/ "$1"', "a service keeps its name"),
        ('sed -i s,inference/vllm_dummy,simple/hello, "$1"', "is made of inference/vllm_dummy"),
        ('printf "config:\\n  model: null\\n" >>"$1"', "can't be given null"),
    ],
)
def test_what_is_refused_is_shown_again(ask: Run, live: LiveApi, chat: str, editor: Path, turn: str, why: str) -> None:
    shown = edits(editor, turn, "true")
    ran = ask("services", "edit", "chat")
    assert (ran.code, why in ran.err) == (Exit.FAILED, True), ran.err
    (kept,) = editor.parent.glob("chat-*.yaml")
    assert str(kept) in ran.err
    again = (shown / "1").read_text()
    said = " ".join(line.removeprefix("# ") for line in again.splitlines() if line.startswith("#"))
    assert "It was refused: " in said
    assert why in said
    assert live.sql("SELECT version FROM services") == [(1,)]


def test_a_script_that_never_mends_it_ends(ask: Run, live: LiveApi, chat: str, editor: Path) -> None:
    edits(editor, 'echo "nonsense: 1" >>"$1"')
    ran = ask("services", "edit", "chat")
    assert (ran.code, "refused 20 times" in ran.err, ran.err.count("\n")) == (Exit.FAILED, True, 1)


def test_what_was_mended_is_sent(ask: Run, live: LiveApi, chat: str, editor: Path) -> None:
    edits(editor, 'printf "replicas: many\\n" >>"$1"', 'sed -i "s/many/4/" "$1"')
    assert ask("services", "edit", "chat").code == 0
    assert declared(ask)["replicas"] == 4


def test_what_others_change_meanwhile_is_kept(ask: Run, live: LiveApi, chat: str, editor: Path) -> None:
    other = f"{sys.executable} -m api.cli services scale chat 5 --server {live.url} >/dev/null"
    turn = f'printf "config:\\n  startup_delay: 1\\n" >>"$1"; {other}'
    shown = edits(editor, turn, 'touch -d "+1 hour" "$1"')
    ran = ask("services", "edit", "chat")
    assert ran.code == 0, ran.err
    assert "somebody else has changed this service" in (shown / "1").read_text()
    assert declared(ask) == {"name": "chat", "recipe_name": RECIPE, "replicas": 5, "config": {"startup_delay": 1}}


def test_an_editor_that_fails(
    ask: Run, live: LiveApi, chat: str, editor: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    edits(editor, "exit 3")
    failed = ask("services", "edit", "chat")
    assert (failed.code, "ended with 3" in failed.err) == (Exit.FAILED, True)
    monkeypatch.setenv("EDITOR", "/nonsense")
    missing = ask("services", "edit", "chat")
    assert (missing.code, "Set EDITOR" in missing.err) == (Exit.USAGE, True)
    ask("services", "delete", "chat")
    assert ask("services", "edit", "chat").code == Exit.NOT_FOUND


def test_an_api_that_goes_away_while_editing(run: Run, api: FakeApi, editor: Path) -> None:
    edits(editor, 'echo "replicas: 2" >>"$1"')
    shown = {"id": "k3", "name": "chat", "recipe_name": "a/b", "config": {}, "replicas": None,
             "desired_state": "running", "deleted_at": None, "version": 1}  # fmt: skip
    api.answer("GET", "/api/v1/services/chat/declaration", (200, shown))
    api.answer("PATCH", "/api/v1/services/k3", (200, b"<html>"))
    ran = run("services", "edit", "chat", "--server", api.url)
    assert ran.code == Exit.UNREACHABLE
    (kept,) = editor.parent.glob("chat-*.yaml")
    assert ran.err.endswith(f"Your text is kept in {kept}.\n")
    assert kept.stat().st_mode & 0o777 == 0o600
    api.answer("PATCH", "/api/v1/services/k3", (200, service()))
    assert run("services", "edit", "chat", "--server", api.url).code == 0
    assert api.headers[-1]["If-Match"] == '"1"'
