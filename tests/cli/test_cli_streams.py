"""Logs and changes that are followed, also over a restart of the API."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli_tools import Following, LiveApi, Run

from api.cli.rest.streams import ServerEvent, lines, parse
from api.contract.exits import Exit

RECIPE = "inference/vllm_dummy"


def test_events_are_parsed_wherever_they_are_cut() -> None:
    text = ": hello\nid: 3\n\nevent: log\nid: 4\ndata: é\u2028x\ndata: y\n\ndata: half".encode()
    for cut in range(len(text)):
        found = list(parse(lines([text[:cut], text[cut:]])))
        assert found == [ServerEvent("", "3", ""), ServerEvent("log", "4", "é\u2028x\ny")]
    assert list(parse(lines([b"event: log\r\ndata: 1\r\n\r\n"]), "7")) == [ServerEvent("log", "7", "1")]


@pytest.fixture
def own(tmp_path: Path, sqlite_template: Path) -> Iterator[LiveApi]:
    """An API of this test's own, to be restarted."""
    api = LiveApi(tmp_path / "site", sqlite_template)
    api.start()
    yield api
    api.stop()


@pytest.fixture
def started() -> Iterator[list[Following]]:
    followers: list[Following] = []
    yield followers
    for one in followers:
        one.kill()


def test_logs_go_on_where_they_were_after_a_restart(own: LiveApi, run: Run, started: list[Following]) -> None:
    run("services", "create", RECIPE, "--name", "chat", "--server", own.url)
    ((service,),) = own.sql("SELECT id FROM services")
    log = own.attempt(service, job_id=7) / "stdout.log"
    log.write_text("one\ntwo\n")
    started.append(follower := Following("logs", "chat", "-f", "--tail", "1", "--server", own.url))
    follower.until("two\n")
    own.stop()
    follower.until("Waiting until it is back")
    with log.open("a") as file:
        file.write("three\n")
    own.start()
    follower.until("three\n")
    with log.open("a") as file:
        file.write("four\n")
    follower.until("four\n")
    own.sql("UPDATE attempts SET closed_at = 1, gone_at = 1, outcome = 'stopped'")
    own.sql("UPDATE services SET desired_state = 'stopped'")
    assert follower.end(asked=False) == 0
    said = [line for line in follower.text.splitlines() if not line.startswith(("The API", "The connection"))]
    assert said == ["two", "three", "four", "Attempt 1 of replica 0 ended: stopped."]


def test_logs_of_several_replicas_and_of_one(ask: Run, live: LiveApi, started: list[Following]) -> None:
    service = json.loads(ask("services", "create", RECIPE, "--name", "chat", "--replicas", "2", "-o", "json").out)["id"]
    for replica in (0, 1):
        for attempt in (1, 2):
            ended = {"closed_at": 1, "gone_at": 1, "outcome": "x"} if attempt == 1 else {}
            folder = live.attempt(service, replica, attempt, **ended)
            (folder / "stdout.log").write_text(f"of {replica}-{attempt}\n")
    started.append(follower := Following("logs", "chat", "-f", "--server", live.url))
    follower.until("0 | of 0-2\n")
    follower.until("1 | of 1-2\n")
    assert follower.end() == Exit.INTERRUPTED
    assert "of 0-1" not in follower.text
    started.append(
        follower := Following(
            "logs", "chat", "-f", "--replica", "1", "--attempt", "1", "--server", live.url, "-o", "json"
        )
    )
    assert follower.end(asked=False) == 0
    told = [json.loads(line) for line in follower.text.splitlines()]
    assert [(one["event"], one.get("text")) for one in told if one["stream"] == "stdout"] == [
        ("log", "of 1-1\n"), ("ended", None),
    ]  # fmt: skip
    one = ask("logs", "chat", "--replica", "1", "--attempt", "1").out
    assert "of 1-1" in one
    assert "of 0" not in one
    assert ask("logs", "chat", "--tail", "0").out.count("of ") == 0
    assert "File not found" in ask("logs", "chat").out
    assert set(json.loads(ask("logs", "chat", "-o", "json").out)) == {"id", "logs"}
    for wrong in (("--tail", "-1"), ("--replica", "-1"), ("--attempt", "0")):
        assert ask("logs", "chat", *wrong).code == Exit.USAGE
    assert ask("logs", "nobody", "-f").code == Exit.NOT_FOUND


def test_a_watch_tells_of_changes_over_a_restart(own: LiveApi, run: Run, started: list[Following]) -> None:
    def ask(*argv: str) -> None:
        assert run(*argv, "--server", own.url).code == 0

    ask("services", "create", RECIPE, "--name", "before")
    ask("services", "delete", "before")
    ask("services", "create", RECIPE, "--name", "chat")
    started.append(follower := Following("watch", "--server", own.url))
    follower.until("chat  pending")
    own.stop()
    follower.until("Waiting until it is back")
    ((service,),) = own.sql("SELECT id FROM services WHERE name = 'chat'")
    own.observe(service, "AsWanted", ready=1)
    own.start()
    follower.until("chat  running  1/1")
    ask("services", "delete", "chat")
    follower.until("chat  stopping")
    own.observe(service, "Stopped")
    follower.until("chat  deleted")
    assert follower.end() == Exit.INTERRUPTED
    assert "before" not in follower.text
    assert "Traceback" not in follower.text


def test_a_watch_of_one_service(ask: Run, live: LiveApi, started: list[Following]) -> None:
    for name in ("chat", "other"):
        ask("services", "create", RECIPE, "--name", name)
    started.append(follower := Following("watch", "chat", "-o", "json", "--server", live.url))
    follower.until("\n")
    ask("services", "scale", "other", "2")
    ask("services", "scale", "chat", "2")
    follower.until('"changed"')
    assert follower.end() == Exit.INTERRUPTED
    told = [json.loads(line) for line in follower.text.splitlines()]
    assert [(one["event"], one["service"]["name"]) for one in told] == [("created", "chat"), ("changed", "chat")]


def test_a_watch_ends_in_time(ask: Run, live: LiveApi) -> None:
    assert ask("watch", "--timeout", "0.1").code == 0
    assert ask("watch", "nobody", "--timeout", "1").code == Exit.NOT_FOUND


def test_events_are_followed(own: LiveApi, run: Run, started: list[Following]) -> None:
    run("services", "create", RECIPE, "--name", "chat", "--server", own.url)
    ((service,),) = own.sql("SELECT id FROM services")
    started.append(follower := Following("services", "events", "chat", "-f", "--server", own.url))
    follower.until("chat was created")
    own.event(service, "Submitted", "Replica 0: it is job 7.")
    follower.until("Submitted  Replica 0: it is job 7.\n")
    own.sql("UPDATE events SET count = 2, last_at = last_at + 1")
    follower.until("it is job 7. (2 times)")
    assert follower.end() == Exit.INTERRUPTED
    assert follower.text.count("chat was created") == 1
