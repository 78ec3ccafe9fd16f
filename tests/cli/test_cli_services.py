from __future__ import annotations

import json
import re
import socket
from pathlib import Path
from typing import Any

import pytest
from cli_tools import FakeApi, Run, service
from ruamel.yaml import YAML

from api.contract.exits import Exit

SERVICES = "/api/v1/services"
ONE = f"{SERVICES}/k3x9q2ab"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.cli.services.wait.POLL_FIRST", 0.01)
    monkeypatch.setattr("api.cli.services.wait.POLL_MOST", 0.02)


@pytest.fixture
def call(run: Run, api: FakeApi) -> Run:
    return lambda *argv: run(*argv, "--server", api.url)


def test_list_in_every_format(call: Run, api: FakeApi) -> None:
    other = service(id="zz", name="hello", status="failed", message="no\nsuch partition", replicas=None)
    api.answer("GET", SERVICES, (200, [service(), other]))
    lines = call("services", "list").out.splitlines()
    assert lines[0].split() == ["ID", "NAME", "RECIPE", "STATUS", "READY", "AGE", "MESSAGE"]
    assert lines[1].split()[:5] == ["k3x9q2ab", "chat", "inference/vllm", "running", "1/2"]
    assert lines[2].endswith("no such partition")
    assert "CREATED" in call("services", "list", "-o", "wide").out
    assert call("services", "list", "-o", "name").out == "chat\nhello\n"
    assert json.loads(call("services", "list", "-o", "json").out) == [service(), other]


def test_list_chooses(call: Run, api: FakeApi) -> None:
    gone = {"deleted_at": "2026-01-02T03:04:05+00:00", "status": "cancelled"}
    ending = service(id="b", name="ending", conditions=[{"type": "Progressing", "reason": "Stopping"}], **gone)
    ours = service(id="c", name="ours", status="failed", config={"applied_as": "team-a", "resources": {"gpu": 1}})
    over = service(id="d", name="over", conditions=[{"type": "Progressing", "reason": "Stopped"}], **gone)
    api.answer("GET", SERVICES, (200, [service(), ending, ours]))
    api.answer("GET", f"{SERVICES}?deleted=true", (200, [ending, over]))
    api.answer("GET", f"{SERVICES}?recipe=hello", (200, []))
    shown = [line.split()[3] for line in call("services", "list", "--all").out.splitlines()[1:]]
    assert shown == ["running", "stopping", "failed", "deleted"]
    for argv, names in (
        (("--status", "failed"), "ours\n"),
        (("--status", "failed,running"), "chat\nours\n"),
        (("--all", "--status", "stopping", "--status", "deleted"), "ending\nover\n"),
        (("-l", "applied_as=team-a"), "ours\n"),
        (("-l", "resources.gpu=1"), "ours\n"),
        (("-l", "resources.gpu=true"), ""),
        (("-l", "resources.gpu=1", "-l", "applied_as=b"), ""),
        (("--recipe", "hello"), ""),
    ):
        assert call("services", "list", *argv, "-o", "name").out == names, argv
    nothing = call("services", "list", "--recipe", "hello")
    assert (nothing.code, nothing.out, nothing.err) == (0, "", "There is no such service.\n")


def test_yaml_says_the_same_as_json(call: Run, api: FakeApi) -> None:
    whole = service(message="a: 'b'\n- c", config={"nodes": 1, "x": [None, "1", 1.0, {}]})
    api.answer("GET", SERVICES, (200, [whole]))
    api.answer("GET", f"{SERVICES}/chat", (200, whole))
    assert YAML(typ="safe", pure=True).load(call("services", "list", "-o", "yaml").out) == [whole]
    text = call("services", "get", "chat", "-o", "yaml").out
    assert YAML(typ="safe", pure=True).load(text) == whole
    assert text.startswith("id: k3x9q2ab\nname: chat\n")


def test_an_empty_list_says_what_to_do(call: Run, api: FakeApi) -> None:
    api.answer("GET", SERVICES, (200, []))
    ran = call("services", "list")
    assert (ran.code, ran.out) == (0, "")
    assert "services create" in ran.err
    assert json.loads(call("services", "list", "-o", "json").out) == []


def test_an_api_that_gives_only_the_contract_is_enough(call: Run, api: FakeApi) -> None:
    bare = {key: service()[key] for key in ("id", "name", "recipe_name", "status", "config", "created_at")}
    api.answer("GET", SERVICES, (200, [bare]))
    api.answer("GET", f"{SERVICES}/chat", (200, bare))
    assert "chat" in call("services", "list").out
    assert "inference/vllm" in call("services", "describe", "chat").out


def test_create_sends_what_was_given(call: Run, api: FakeApi, tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("resources: {gpu: 1}\n")
    api.answer("POST", SERVICES, (200, service(status="pending")))
    ran = call("services", "create", "inference/vllm", "--name", "chat", "--replicas", "2", "--set", "model=a/b",
               "--set", "resources.cpu=8", "--config-file", str(file), "--access", "owner", "-o", "name")  # fmt: skip
    assert (ran.code, ran.out) == (0, "chat\n")
    config = {"resources": {"gpu": 1, "cpu": 8}, "model": "a/b", "replicas": 2}
    asked = {"recipe_name": "inference/vllm", "config": config, "name": "chat", "access": "owner"}
    assert api.asked == [("POST", SERVICES, asked)]


def test_refusals_are_one_readable_line(call: Run, api: FakeApi) -> None:
    detail: Any = [{"loc": ["body", "config", "gpu"], "msg": "must be at most 8", "type": "x"},
                   {"loc": ["body", "name"], "msg": "too long", "type": "x"}]  # fmt: skip
    api.answer("POST", SERVICES, (422, {"detail": detail}), (409, {"detail": "The name chat is taken."}),
               (404, {"detail": "Recipe not found: x"}), (401, {"detail": "A key is needed."}), (500, {}))  # fmt: skip
    rans = [call("services", "create", "x") for _ in range(5)]
    assert [ran.code for ran in rans] == [1, 1, 5, 1, 1]
    assert rans[0].err == "ai-factory: config.gpu: must be at most 8; name: too long\n"
    assert rans[1].err == "ai-factory: The name chat is taken.\n"
    assert "admin_key_file" in rans[3].err
    assert "500" in rans[4].err


def test_wait_ends_when_it_runs_and_tells_what_goes_on(call: Run, api: FakeApi) -> None:
    api.answer("POST", SERVICES, (200, service(status="pending")))
    steps = [service(status="pending", message="Queued."), service(status="starting"), service()]
    api.answer("GET", ONE, *((200, step) for step in steps))
    ran = call("services", "create", "inference/vllm", "--wait")
    assert ran.code == 0
    lines = [re.fullmatch(r"(.*?) +\d+\.\d s", line) for line in ran.err.splitlines()]
    assert [line and line[1] for line in lines] == [
        "· chat  pending: Queued.", "· chat  starting", "✓ chat  is running",
    ]  # fmt: skip
    assert ran.out.splitlines()[1].split()[3] == "running"


def test_wait_for_a_service_that_fails_vanishes_or_lasts(call: Run, api: FakeApi) -> None:
    api.answer("POST", SERVICES, (200, service(status="pending")))
    create = ("services", "create", "inference/vllm", "--wait", "--timeout", "0.1")
    api.answer("GET", ONE, (200, service(status="failed", message="No such image.")))
    failed = call(*create)
    assert (failed.code, "No such image." in failed.err) == (Exit.FAILED, True)
    api.answer("GET", ONE, (404, {"detail": "Service not found"}))
    assert call(*create).code == Exit.NOT_FOUND
    api.answer("GET", ONE, (200, service(status="pending")))
    late = call(*create)
    assert (late.code, "describe k3x9q2ab" in late.err) == (Exit.TIMED_OUT, True)


@pytest.mark.parametrize("what", ["ready", "completed"])
def test_what_can_never_start_is_not_waited_for(call: Run, api: FakeApi, what: str) -> None:
    message = "The job 7 is queued and can't start as things are (PartitionTimeLimit). Lower it."
    against = [{"type": "Startable", "status": "False", "reason": "OverLimit", "message": message}]
    barred = service(status="pending", conditions=against)
    api.answer("POST", SERVICES, (200, barred))
    api.answer("GET", ONE, (200, barred))
    api.answer("GET", f"{SERVICES}/chat", (200, barred))
    for command in (("create", "inference/vllm", "--wait"), ("wait", "chat", "--for", what)):
        ran = call("services", *command)
        assert (ran.code, message.rstrip(".") in ran.err) == (Exit.SETUP, True)
    before = barred | {"generation": 2, "observed_generation": 1}
    api.answer("GET", f"{SERVICES}/chat", (200, before))
    api.answer("GET", ONE, (200, before))
    api.answer("POST", SERVICES, (200, before))
    for command in (("create", "inference/vllm", "--wait"), ("wait", "chat", "--for", what)):
        assert call("services", *command, "--timeout", "0.1").code == Exit.TIMED_OUT


def test_delete_all_and_name_the_missing(call: Run, api: FakeApi) -> None:
    api.answer("GET", f"{SERVICES}/chat", (200, service()))
    api.answer("DELETE", ONE, (200, {"message": "stopped"}))
    ran = call("services", "delete", "nobody", "chat")
    assert (ran.code, ran.out) == (Exit.NOT_FOUND, "chat is being stopped\n")
    assert "nobody" in ran.err
    assert ("DELETE", ONE, None) in api.asked


def test_delete_what_a_file_names(call: Run, api: FakeApi, tmp_path: Path) -> None:
    file = tmp_path / "services.yaml"
    file.write_text("{name: chat, recipe_name: x}\n---\n{name: nobody, recipe_name: x}\n")
    api.answer("GET", f"{SERVICES}/chat", (200, service()))
    api.answer("DELETE", ONE, (200, {"message": "stopped"}))
    ran = call("services", "delete", "-f", str(file), "-o", "name")
    assert (ran.code, ran.out, "nobody" in ran.err) == (Exit.NOT_FOUND, "chat\n", True)
    assert call("services", "delete").code == Exit.USAGE
    assert call("services", "delete", "-f", str(tmp_path / "none")).code == Exit.USAGE


def test_delete_waits_until_the_jobs_have_ended(call: Run, api: FakeApi) -> None:
    def stopping(reason: str) -> tuple[int, Any]:
        return 200, service(status="cancelled", conditions=[{"type": "Progressing", "reason": reason}])

    api.answer("GET", f"{SERVICES}/chat", (200, service()))
    api.answer("DELETE", ONE, (200, {"message": "stopped"}))
    api.answer("GET", ONE, stopping("Stopping"), stopping("Stopped"))
    assert call("services", "delete", "chat", "--wait").code == 0
    api.answer("GET", ONE, stopping("Stopping"))
    assert call("services", "delete", "chat", "--wait", "--timeout", "0.1").code == Exit.TIMED_OUT


def test_names_are_quoted_in_paths(call: Run, api: FakeApi) -> None:
    call("services", "get", "a/b?c")
    assert api.asked[0][1] == f"{SERVICES}/a%2Fb%3Fc"


def test_describe_writes_what_there_is(call: Run, api: FakeApi) -> None:
    full = service(
        generation=3,
        observed_generation=2,
        conditions=[{"type": "Ready", "status": "False", "reason": "Queued", "message": "Waits.", "since": 1.0}],
    )
    attempts = [{"replica": 0, "attempt": 2, "lane": "main", "job_id": 17, "state": "ready", "node": "n1"}]
    events = [{"type": "Warning", "reason": "Lost", "message": "The node died.", "count": 3, "last_at": 5.0}]
    api.answer("GET", f"{ONE}/attempts?tail=10", (200, attempts))
    api.answer("GET", f"{ONE}/events?tail=10", (200, events))
    api.answer("GET", f"{SERVICES}/chat", (200, full))
    out = call("services", "describe", "chat").out
    for text in ("not looked at yet", "Conditions:", "Waits.", "Attempts:", "17", "Events:", "The node died."):
        assert text in out
    assert json.loads(call("services", "describe", "chat", "-o", "json").out) == {
        **full, "attempts": attempts, "events": events,
    }  # fmt: skip


def test_the_administrators_key_is_sent(
    call: Run, api: FakeApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = tmp_path / "admin.key"
    monkeypatch.setenv("AI_FACTORY_API_ADMIN_KEY_FILE", str(key))
    missing = call("services", "list")
    assert (missing.code, str(key) in missing.err) == (Exit.SETUP, True)
    key.write_text("s3cret\n")
    key.chmod(0o640)
    shared = call("services", "list")
    assert (shared.code, f"Run: chmod 600 {key}" in shared.err, api.headers) == (Exit.SETUP, True, [])
    key.chmod(0o600)
    api.answer("GET", SERVICES, (200, []))
    call("services", "list")
    assert api.headers[-1]["Authorization"] == "Bearer s3cret"
    key.write_text("two\nlines")
    assert call("services", "list").code == Exit.SETUP


def test_server_and_key_are_remembered_by_the_environment(
    run: Run, api: FakeApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = tmp_path / "key"
    key.touch(mode=0o600)
    key.write_text("s3cret\n")
    api.answer("GET", SERVICES, (200, []))
    monkeypatch.setenv("AI_FACTORY_SERVER", api.url)
    assert run("services", "list").code == 0
    assert "Authorization" not in api.headers[-1]
    monkeypatch.setenv("AI_FACTORY_KEY_FILE", str(key))
    assert run("services", "list").code == 0
    assert api.headers[-1]["Authorization"] == "Bearer s3cret"
    key.write_bytes(bytes(range(200, 232)))
    assert run("services", "list").code == 0
    assert "Authorization" not in api.headers[-1], "an installation's own key is nobody's business"
    monkeypatch.setenv("AI_FACTORY_KEY_FILE", str(tmp_path / "none"))
    missing = run("services", "list")
    assert (missing.code, "AI_FACTORY_KEY_FILE" in missing.err) == (Exit.SETUP, True)
    assert run("services", "list", "--server", "http://127.0.0.1:9").code == Exit.SETUP


def test_an_installations_key_is_sent_to_nobody(call: Run, api: FakeApi, home: Path) -> None:
    """The file that the settings name by default is not the key for a server."""
    file = home / ".local/state/ai-factory/installation.key"
    file.parent.mkdir(parents=True)
    file.write_text("printable")
    api.answer("GET", SERVICES, (200, []))
    assert call("services", "list").code == 0
    assert "Authorization" not in api.headers[-1]


def test_nothing_listens(run: Run) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, not listening: refused, and nobody else can take it
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        ran = run("services", "list", "--server", url)
    assert ran.code == Exit.UNREACHABLE
    assert ran.err.startswith(f"ai-factory: The API at {url} can't be reached")
    assert ran.err.endswith("Start it with: ai-factory up\n")


@pytest.mark.parametrize("url", ["nonsense", "ftp://x", "http://", "http://[::1"])
def test_an_address_that_is_none(run: Run, url: str) -> None:
    ran = run("services", "list", "--server", url)
    assert (ran.code, ran.err.count("\n")) == (Exit.USAGE, 1)


def test_something_else_listens(call: Run, api: FakeApi) -> None:
    api.answer("GET", SERVICES, (200, b"<html>"), (200, {"a": 1}), (404, b"nope"))
    codes = [call("services", "list").code for _ in range(3)]
    assert codes == [Exit.UNREACHABLE, Exit.FAILED, Exit.UNREACHABLE]


def test_a_proxy_of_the_site_is_not_used(call: Run, api: FakeApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    api.answer("GET", SERVICES, (200, []))
    assert call("services", "list").code == 0
