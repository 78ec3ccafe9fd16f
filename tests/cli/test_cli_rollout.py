"""`ai-factory services rollout`, through the API itself; the controller's part is played by hand."""

from __future__ import annotations

import json
import threading
import time
from typing import Any

import pytest
from cli_tools import FakeApi, LiveApi, Ran, Run, service
from ruamel.yaml import YAML

from api.contract.exits import Exit

RECIPE = "inference/vllm_dummy"
ROLLOUT = ("services", "rollout")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.cli.services.wait.POLL_FIRST", 0.01)
    monkeypatch.setattr("api.cli.services.wait.POLL_MOST", 0.02)


@pytest.fixture
def chat(ask: Run) -> str:
    """A service of that name, with two replicas; its id."""
    made = ask(
        "services", "create", RECIPE, "--name", "chat", "--replicas", "2", "--set", "startup_delay=1", "-o", "json"
    )
    return str(json.loads(made.out)["id"])


def runs(live: LiveApi, service: str, replica: int, **columns: Any) -> None:
    """An attempt answers, as it is wanted now unless a digest says otherwise."""
    live.attempt(
        service, replica, **{"job_id": 17 + replica, "node": "n1", "started_at": 1.0, "ready_at": 2.0, **columns}
    )


def status(ask: Run, *words: str) -> dict[str, Any]:
    ran = ask(*ROLLOUT, "status", "chat", "-o", "json", *words)
    assert ran.code == 0, ran
    return dict(json.loads(ran.out))


def waits(ask: Run, *words: str) -> Ran:
    return ask(*ROLLOUT, "status", "chat", "--wait", "--timeout", "0.05", *words)


# status


def test_how_far_it_is_and_what_stands_for_each_replica(ask: Run, live: LiveApi, chat: str) -> None:
    live.observe(chat, "RollingOut", ready=2, message="Replica 1: The job 19 is queued (Resources).")
    runs(live, chat, 0, ends_at=time.time() + 3610)
    runs(live, chat, 1, digest="old", generation=1, draining_since=time.time() - 30)
    live.attempt(chat, 1, 2, lane="b", beside="Changed", job_id=19)
    ran = ask(*ROLLOUT, "status", "chat")
    said, gap, titles, *rows = [line.split() for line in ran.out.splitlines()[1:]]
    assert (ran.code, said[:5], gap) == (0, ["chat", "1", "progressing", "1/2", "2/2"], [])
    assert "The job 19 is queued (Resources)." in ran.out
    assert titles == ["REPLICA", "ATTEMPT", "LANE", "JOB", "NODE", "STATE", "RUNS", "ENDS", "THEN"]
    assert rows[0] == ["0", "1", "main", "17", "n1", "ready", "wanted", "in", "60m"]
    assert rows[1][:9] == ["1", "1", "main", "18", "n1", "draining", "30s", "generation", "1"]
    assert "another attempt has its traffic" in ran.out
    assert rows[2] == ["1", "2", "b", "19", "pending", "(Changed)", "wanted"]
    found = status(ask)
    assert (found["state"], found["updated_replicas"], len(found["attempts"])) == ("progressing", 1, 3)
    assert YAML(typ="safe", pure=True).load(ask(*ROLLOUT, "status", "chat", "-o", "yaml").out) == found
    assert ask(*ROLLOUT, "status", "chat", "-o", "name").out == "chat\n"
    assert ask(*ROLLOUT, "status", "nobody").code == Exit.NOT_FOUND


def test_describe_tells_it_too(ask: Run, live: LiveApi, chat: str) -> None:
    """What stands for a replica and what happens to it next, apart from what was before."""
    live.observe(chat, "RolloutPaused", ready=1, message="Its rollout is paused.")
    now = time.time()
    live.attempt(chat, 0, 1, job_id=16, node="n0", closed_at=now - 65, gone_at=now - 60, outcome="Interrupted")
    runs(live, chat, 0, incarnation=2, digest="old", ends_at=now - 3, draining_since=now - 30)
    runs(live, chat, 0, incarnation=3, lane="b", beside="Interrupted", job_id=18, ends_at=now + 3610)
    ran = ask("services", "describe", "chat")
    facts, _, replicas = ran.out.partition("Replicas:\n")
    replicas, _, before = replicas.partition("Attempts before:\n")
    assert (ran.code, "Rollout:     progressing, 1 of 2 replicas run what is wanted" in facts) == (0, True), ran.out
    old, successor = [line.split() for line in replicas.splitlines()[1:3]]
    assert old[:11] == ["0", "2", "main", "17", "n1", "draining", "30s", "generation", "1", "3s", "ago"]
    assert successor[:9] == ["0", "3", "b", "18", "n1", "ready", "wanted", "in", "60m"]
    assert before.splitlines()[1].split() == ["0", "1", "main", "16", "Interrupted", "n0", "65s"]
    told = json.loads(ask("services", "describe", "chat", "-o", "json").out)
    assert [one["attempt"] for one in told["rollout"]["attempts"]] == [2, 3]


@pytest.mark.parametrize("flag", ["--wait", "--watch"])
def test_it_is_followed_until_it_is_through(ask: Run, live: LiveApi, chat: str, flag: str) -> None:
    """What was said of the generation before is no end of it."""
    for replica in (0, 1):
        runs(live, chat, replica, digest="old")
    live.observe(chat, "RollingOut", ready=2, message="0 of 2 replicas run what is wanted now.")

    def through() -> None:
        live.sql("UPDATE attempts SET digest = ''")
        live.observe(chat, "AsWanted", ready=2)

    later = threading.Timer(0.3, through)
    later.start()
    ran = ask(*ROLLOUT, "status", "chat", flag, "--timeout", "30")
    later.join()
    assert (ran.code, ran.out.splitlines()[1].split()[:5]) == (0, ["chat", "1", "complete", "2/2", "2/2"])
    assert "· chat  running: 0 of 2 replicas run what is wanted now." in ran.err
    ask("services", "restart", "chat")
    assert waits(ask).code == Exit.TIMED_OUT


@pytest.mark.parametrize(
    ("reason", "code"), [("RolloutFailed", Exit.FAILED), ("Failed", Exit.FAILED), ("RollingOut", Exit.TIMED_OUT)]
)
def test_scripts_can_tell_by_the_exit_code(ask: Run, live: LiveApi, chat: str, reason: str, code: Exit) -> None:
    runs(live, chat, 0, digest="old")
    live.observe(chat, reason, ready=1, message="Replica 1 does not come to it.")
    ran = waits(ask)
    assert (ran.code, ran.out, "Replica 1 does not come to it." in ran.err) == (code, "", True)
    assert status(ask)["state"] == ("progressing" if reason == "RollingOut" else "failed")


def test_one_that_is_stopped_goes_no_further(ask: Run, live: LiveApi, chat: str) -> None:
    ask("services", "stop", "chat")
    live.observe(chat, "Stopped")
    ran = waits(ask)
    assert (ran.code, "nothing is rolled out" in ran.err) == (Exit.FAILED, True)


def test_a_job_that_can_never_start_is_not_waited_for(run: Run, api: FakeApi) -> None:
    against = [{"type": "Startable", "status": "False", "reason": "OverLimit", "message": "The job 7 can't start."}]
    api.answer("GET", "/api/v1/services/chat", (200, service(conditions=against)))
    rollout = {"state": "progressing", "message": "0 of 2 replicas answer as generation 2 says."}
    api.answer("GET", "/api/v1/services/k3x9q2ab/rollout", (200, rollout))
    ran = run(*ROLLOUT, "status", "chat", "--wait", "--server", api.url)
    assert (ran.code, "The job 7 can't start." in ran.err) == (Exit.SETUP, True)


def test_an_api_that_is_away_for_a_while_is_waited_for(run: Run, api: FakeApi) -> None:
    through = {
        "service_id": "k3x9q2ab", "name": "chat", "generation": 2, "state": "complete", "message": "", "replicas": 2,
        "updated_replicas": 2, "ready_replicas": 2, "attempts": [],
    }  # fmt: skip
    for path in ("chat", "k3x9q2ab"):
        api.answer("GET", f"/api/v1/services/{path}", (200, service()))
    api.answer("GET", "/api/v1/services/k3x9q2ab/rollout", (502, b"<html>"), (200, through))
    ran = run(*ROLLOUT, "status", "chat", "--wait", "--server", api.url)
    assert (ran.code, ran.out.splitlines()[1].split()) == (0, ["chat", "2", "complete", "2/2", "2/2"])


# history and undo


def test_history_lists_what_can_be_gone_back_to(ask: Run, chat: str) -> None:
    ask("services", "restart", "chat")
    ask("services", "scale", "chat", "3")
    ran = ask(*ROLLOUT, "history", "chat")
    rows = [line.split() for line in ran.out.splitlines()]
    assert rows[0] == ["GENERATION", "AT", "WANTED", "RECIPE", "CHANGED"]
    assert [(row[0], row[3:]) for row in rows[1:]] == [("1", [RECIPE]), ("2", ["now", RECIPE, "restarted_at"])]
    assert '{"startup_delay": 1' in ask(*ROLLOUT, "history", "chat", "-o", "wide").out
    kept = json.loads(ask(*ROLLOUT, "history", "chat", "-o", "json").out)
    assert [one["generation"] for one in kept] == [1, 2]
    assert ask(*ROLLOUT, "history", "nobody").code == Exit.NOT_FOUND


def test_undo(ask: Run, live: LiveApi, chat: str) -> None:
    nothing = ask(*ROLLOUT, "undo", "chat")
    assert (nothing.code, "nothing to go back to" in nothing.err) == (Exit.FAILED, True)
    ask("services", "restart", "chat")
    ran = ask(*ROLLOUT, "undo", "chat", "-o", "json")
    assert (ran.code, json.loads(ran.out)["generation"]) == (0, 3)
    assert json.loads(ask("export", "chat", "-o", "json").out)[0]["config"] == {"startup_delay": 1}
    assert ask(*ROLLOUT, "undo", "chat", "--to", "2", "-o", "name").out == "chat\n"
    assert "restarted_at" in json.loads(ask("export", "chat", "-o", "json").out)[0]["config"]
    missing = ask(*ROLLOUT, "undo", "chat", "--to", "99")
    assert (missing.code, missing.err) == (
        Exit.NOT_FOUND,
        "ai-factory: Generation 99 is not kept. See: ai-factory services rollout history\n",
    )
    for wrong in ("0", "-1", "many", str(2**31)):
        assert ask(*ROLLOUT, "undo", "chat", "--to", wrong).code == Exit.USAGE
    assert live.sql("SELECT generation FROM services") == [(4,)]


def test_undo_waits_for_what_it_goes_back_to(ask: Run, live: LiveApi, chat: str) -> None:
    ask("services", "restart", "chat")
    live.observe(chat, "RolloutFailed", message="It does not come up.")
    for replica in (0, 1):
        runs(live, chat, replica)
    late = ask(*ROLLOUT, "undo", "chat", "--wait", "--timeout", "0.05")
    assert late.code == Exit.TIMED_OUT, "the failure is of the generation before"
    live.observe(chat, "AsWanted", ready=2)
    ran = ask(*ROLLOUT, "undo", "chat", "--to", "3", "--wait", "--timeout", "30", "-o", "name")
    assert (ran.code, ran.out) == (0, "chat\n")


# pause and resume


def test_pause_and_resume(ask: Run, live: LiveApi, chat: str) -> None:
    runs(live, chat, 0, digest="old")
    live.observe(chat, "RolloutPaused", ready=1)
    ran = ask(*ROLLOUT, "pause", "chat")
    assert (ran.code, ran.out.splitlines()[1].split()[2]) == (0, "paused")
    assert "To go on: ai-factory services rollout resume" in ran.out
    assert "POST" not in ran.out
    assert live.sql("SELECT rollout_paused FROM services") == [(1,)]
    assert waits(ask).code == Exit.TIMED_OUT, "somebody may resume it"
    resumed = ask(*ROLLOUT, "resume", "chat", "-o", "json")
    assert (resumed.code, json.loads(resumed.out)["paused"]) == (0, False)
    assert ask(*ROLLOUT, "resume", "chat", "--wait", "--timeout", "0.05").code == Exit.TIMED_OUT
    for word in ("pause", "resume"):
        assert ask(*ROLLOUT, word, "nobody").code == Exit.NOT_FOUND
